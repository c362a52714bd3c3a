//! Buffers that go back to their pool when they die, as mbufs do.

use std::cell::RefCell;
use std::rc::Rc;

use shardgate_core::buffer::{Buffer, BufferPool, HeapBuffer, Meta};
use shardgate_core::limits::HEADROOM;

type Shelf = Rc<RefCell<Vec<HeapBuffer>>>;

/// A buffer of a [`Pool`].
#[derive(Debug)]
pub struct Recycled {
    buffer: Option<HeapBuffer>,
    shelf: Shelf,
}

/// A pool that allocates nothing once it is made.
pub struct Pool(Shelf);

impl Pool {
    /// `count` buffers of `capacity` bytes.
    pub fn new(count: usize, capacity: usize) -> Self {
        let fresh = || HeapBuffer::new(HEADROOM, capacity);
        let shelf = std::iter::repeat_with(fresh).take(count).collect();
        Self(Rc::new(RefCell::new(shelf)))
    }

    /// Buffers that nobody has.
    pub fn left(&self) -> usize {
        self.0.borrow().len()
    }
}

impl BufferPool for Pool {
    type Buffer = Recycled;

    fn alloc(&mut self) -> Option<Recycled> {
        let buffer = self.0.borrow_mut().pop()?;
        Some(Recycled {
            buffer: Some(buffer),
            shelf: Rc::clone(&self.0),
        })
    }
}

impl Recycled {
    fn inner(&self) -> &HeapBuffer {
        self.buffer.as_ref().expect("taken only on drop")
    }

    fn inner_mut(&mut self) -> &mut HeapBuffer {
        self.buffer.as_mut().expect("taken only on drop")
    }
}

impl Drop for Recycled {
    fn drop(&mut self) {
        if let Some(mut buffer) = self.buffer.take() {
            // Empty again, with its headroom.
            let (len, headroom) = (buffer.len(), buffer.headroom());
            assert!(buffer.trim_back(len));
            if headroom < HEADROOM {
                buffer.append(HEADROOM - headroom);
                assert!(buffer.trim_front(HEADROOM - headroom));
            } else {
                buffer.prepend(headroom - HEADROOM);
                assert!(buffer.trim_back(headroom - HEADROOM));
            }
            buffer.set_meta(Meta::default());
            self.shelf.borrow_mut().push(buffer);
        }
    }
}

impl Buffer for Recycled {
    fn data(&self) -> &[u8] {
        self.inner().data()
    }
    fn data_mut(&mut self) -> &mut [u8] {
        self.inner_mut().data_mut()
    }
    fn headroom(&self) -> usize {
        self.inner().headroom()
    }
    fn tailroom(&self) -> usize {
        self.inner().tailroom()
    }
    fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        self.inner_mut().prepend(n)
    }
    fn append(&mut self, n: usize) -> Option<&mut [u8]> {
        self.inner_mut().append(n)
    }
    fn trim_front(&mut self, n: usize) -> bool {
        self.inner_mut().trim_front(n)
    }
    fn trim_back(&mut self, n: usize) -> bool {
        self.inner_mut().trim_back(n)
    }
    fn meta(&self) -> Meta {
        self.inner().meta()
    }
    fn set_meta(&mut self, meta: Meta) {
        self.inner_mut().set_meta(meta);
    }
}

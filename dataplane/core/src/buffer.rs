//! The one buffer abstraction: owned, move-only packet memory with head- and tailroom.
//!
//! On an lcore it is a DPDK mbuf, in tests and in the simulator a [`HeapBuffer`]. A packet is
//! owned in exactly one place; whoever holds the value is the owner, and dropping it gives the
//! memory back to where it came from.

use crate::time::Time;

/// What travels with a packet beside its bytes, while it is inside one gateway.
///
/// 16 bytes, so that it fits a dynamic field of an mbuf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Meta {
    /// When the burst that brought this packet was received, stamped by the rx lcore.
    pub rx_time: Time,
    /// Key slot that seals or opens this shard.
    pub key_slot: u16,
    /// The peer it goes to or came from.
    pub peer: u16,
    /// Address pair it leaves by or arrived on.
    pub path: u8,
    /// Index of the port it arrived on or leaves by.
    pub port: u8,
    /// Free for the stage that owns the packet.
    pub scratch: u16,
}

const _: () = assert!(size_of::<Meta>() == 16);

/// Owned packet memory: one contiguous run of data with room before and behind it.
pub trait Buffer: Sized {
    /// The data.
    fn data(&self) -> &[u8];
    /// The data, to write.
    fn data_mut(&mut self) -> &mut [u8];
    /// Bytes free before the data.
    fn headroom(&self) -> usize;
    /// Bytes free behind the data.
    fn tailroom(&self) -> usize;
    /// Grows the data by `n` bytes at the front and returns them (contents unspecified), or
    /// leaves the buffer as it is if the headroom is too small.
    fn prepend(&mut self, n: usize) -> Option<&mut [u8]>;
    /// Grows the data by `n` bytes at the end and returns them (contents unspecified), or leaves
    /// the buffer as it is if the tailroom is too small.
    fn append(&mut self, n: usize) -> Option<&mut [u8]>;
    /// Drops `n` bytes at the front; false, and nothing changes, if there are fewer.
    #[must_use]
    fn trim_front(&mut self, n: usize) -> bool;
    /// Drops `n` bytes at the end; false, and nothing changes, if there are fewer.
    #[must_use]
    fn trim_back(&mut self, n: usize) -> bool;
    /// The packet's metadata.
    fn meta(&self) -> Meta;
    /// Replaces the packet's metadata.
    fn set_meta(&mut self, meta: Meta);

    /// Bytes of data.
    #[inline]
    fn len(&self) -> usize {
        self.data().len()
    }

    /// True if there is no data.
    #[inline]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where fresh buffers come from. A pool has a bound; an exhausted pool is load, not an error.
pub trait BufferPool {
    /// What it hands out.
    type Buffer: Buffer;

    /// An empty buffer with at least [`crate::limits::HEADROOM`] bytes before its (empty) data, or
    /// nothing when the pool is exhausted.
    fn alloc(&mut self) -> Option<Self::Buffer>;
}

/// A buffer on the heap, for tests and for the simulator.
pub struct HeapBuffer {
    memory: Box<[u8]>,
    start: usize,
    end: usize,
    meta: Meta,
}

impl core::fmt::Debug for HeapBuffer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "HeapBuffer({} bytes)", self.len())
    }
}

impl HeapBuffer {
    /// An empty buffer with `headroom` bytes before and `capacity` bytes behind its start.
    pub fn new(headroom: usize, capacity: usize) -> Self {
        Self {
            memory: vec![0; headroom + capacity].into_boxed_slice(),
            start: headroom,
            end: headroom,
            meta: Meta::default(),
        }
    }

    /// A buffer that holds `bytes`, with the standard headroom and room for a trailer.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut buffer = Self::new(crate::limits::HEADROOM, bytes.len() + 64);
        if let Some(room) = buffer.append(bytes.len()) {
            room.copy_from_slice(bytes);
        }
        buffer
    }
}

impl Buffer for HeapBuffer {
    fn data(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.end]
    }

    fn headroom(&self) -> usize {
        self.start
    }

    fn tailroom(&self) -> usize {
        self.memory.len() - self.end
    }

    fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        self.start = self.start.checked_sub(n)?;
        Some(&mut self.memory[self.start..self.start + n])
    }

    fn append(&mut self, n: usize) -> Option<&mut [u8]> {
        if n > self.tailroom() {
            return None;
        }
        self.end += n;
        Some(&mut self.memory[self.end - n..self.end])
    }

    fn trim_front(&mut self, n: usize) -> bool {
        let fits = n <= self.end - self.start;
        if fits {
            self.start += n;
        }
        fits
    }

    fn trim_back(&mut self, n: usize) -> bool {
        let fits = n <= self.end - self.start;
        if fits {
            self.end -= n;
        }
        fits
    }

    fn meta(&self) -> Meta {
        self.meta
    }

    fn set_meta(&mut self, meta: Meta) {
        self.meta = meta;
    }
}

/// A pool of heap buffers with a bound and a count, so that tests see leaks and exhaustion.
#[derive(Debug)]
pub struct HeapPool {
    headroom: usize,
    capacity: usize,
    /// How many more buffers it will hand out.
    pub left: usize,
}

impl HeapPool {
    /// A pool that hands out `count` buffers of `capacity` bytes.
    pub fn new(count: usize, capacity: usize) -> Self {
        Self {
            headroom: crate::limits::HEADROOM,
            capacity,
            left: count,
        }
    }
}

impl BufferPool for HeapPool {
    type Buffer = HeapBuffer;

    fn alloc(&mut self) -> Option<HeapBuffer> {
        self.left = self.left.checked_sub(1)?;
        Some(HeapBuffer::new(self.headroom, self.capacity))
    }
}

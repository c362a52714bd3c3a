//! Single-producer, single-consumer rings between two lcores.

use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;
use std::sync::Arc;

use dpdk_sys as sys;
use shardgate_core::seal::{Opened, Received, Sealed, Unsealed};

use crate::eal::{Eal, EalInner};
use crate::error::{Error, c_string};
use crate::mbuf::{Mbuf, forget_front, free_burst, raw_parts};
use crate::{BURST, Burst};

/// What a ring and a bulk free can carry: an [`Mbuf`], or a wrapper that says more about
/// it (sealed, opened) and is otherwise the same thing.
///
/// # Safety
///
/// The type is `repr(transparent)` over one [`Mbuf`] (beside zero-sized fields) and adds nothing to
/// what dropping that mbuf does.
pub unsafe trait RingItem: Send + Sized {}

// SAFETY: it is the mbuf.
unsafe impl RingItem for Mbuf {}
// SAFETY: `repr(transparent)` over the mbuf, and none of them implements `Drop`.
unsafe impl RingItem for Unsealed<Mbuf> {}
// SAFETY: as above.
unsafe impl RingItem for Sealed<Mbuf> {}
// SAFETY: as above.
unsafe impl RingItem for Received<Mbuf> {}
// SAFETY: as above.
unsafe impl RingItem for Opened<Mbuf> {}

/// A ring for `size` - 1 packets; `size` is a power of two from 2 on.
///
/// Packets inside belong to the ring. Whichever end is dropped last frees them.
///
/// # Errors
///
/// [`Error::BadSize`], or [`Error::Dpdk`] if memory runs out or the name is taken or too long
/// (about 25 bytes).
pub fn spsc<T: RingItem>(
    eal: &Eal,
    name: &str,
    size: usize,
) -> Result<(Producer<T>, Consumer<T>), Error> {
    let count = u32::try_from(size)
        .ok()
        .filter(|count| count.is_power_of_two() && (2..=1 << 30).contains(count))
        .ok_or_else(|| Error::BadSize {
            what: format!("ring {name}"),
            reason: format!("{size} is not a power of two from 2 to 2^30"),
        })?;
    let c_name = c_string(name)?;
    let flags = sys::RING_F_SP_ENQ | sys::RING_F_SC_DEQ;
    // SAFETY: plain values, and a string that outlives the call.
    let ring = unsafe { sys::rte_ring_create(c_name.as_ptr(), count, sys::SOCKET_ID_ANY, flags) };
    let ring = NonNull::new(ring)
        .ok_or_else(|| Error::errno("rte_ring_create", format!("ring {name}")))?;
    let ring = Arc::new(RingInner {
        ring,
        _eal: eal.inner(),
    });
    Ok((
        Producer {
            ring: Arc::clone(&ring),
            carries: PhantomData,
        },
        Consumer {
            ring,
            carries: PhantomData,
        },
    ))
}

struct RingInner {
    ring: NonNull<sys::rte_ring>,
    _eal: Arc<EalInner>,
}

// SAFETY: a ring is made for two threads, and there is exactly one producer and one consumer, each
// with its own end in hand; counting is allowed to everybody.
unsafe impl Send for RingInner {}
// SAFETY: as above.
unsafe impl Sync for RingInner {}

impl RingInner {
    fn len(&self) -> usize {
        // SAFETY: the ring is alive.
        unsafe { sys::shim_ring_count(self.ring.as_ptr()) as usize }
    }

    fn free(&self) -> usize {
        // SAFETY: the ring is alive.
        unsafe { sys::shim_ring_free_count(self.ring.as_ptr()) as usize }
    }

    fn capacity(&self) -> usize {
        // SAFETY: the ring is alive.
        unsafe { sys::shim_ring_capacity(self.ring.as_ptr()) as usize }
    }

    /// Appends what fits into the burst.
    ///
    /// # Safety
    ///
    /// The caller is the only consumer, and the ring carries `T`.
    #[inline]
    unsafe fn dequeue<T: RingItem>(&self, burst: &mut Burst<T>) -> usize {
        let len = burst.len();
        let (items, _) = raw_parts(burst);
        // SAFETY: the burst has room for the rest, each a pointer; DPDK writes n packets that were
        // put in as T and are ours now, and only then does the length cover them.
        unsafe {
            let n = sys::shim_ring_dequeue_burst(
                self.ring.as_ptr(),
                items.add(len).cast(),
                (BURST - len) as u32,
            ) as usize;
            burst.set_len(len + n);
            n
        }
    }
}

impl Drop for RingInner {
    fn drop(&mut self) {
        let mut burst: Burst<Mbuf> = Burst::new();
        // SAFETY: both ends are gone, so this is the only consumer; every `RingItem` is an mbuf.
        while unsafe { self.dequeue(&mut burst) } > 0 {
            free_burst(&mut burst);
        }
        // SAFETY: nobody else has it, and it is empty.
        unsafe { sys::rte_ring_free(self.ring.as_ptr()) };
    }
}

/// The end that packets go into.
pub struct Producer<T: RingItem = Mbuf> {
    ring: Arc<RingInner>,
    carries: PhantomData<T>,
}

impl<T: RingItem> Producer<T> {
    /// Moves packets from the front of the burst into the ring, as many as it has room for, and says
    /// how many; the others stay in the caller's hands.
    #[inline]
    pub fn push(&mut self, burst: &mut Burst<T>) -> usize {
        let (items, count) = raw_parts(burst);
        // SAFETY: there is one producer, borrowed mutably; the array holds `count` pointers. The
        // first n belong to the ring afterwards.
        unsafe {
            let ring = self.ring.ring.as_ptr();
            let n = sys::shim_ring_enqueue_burst(ring, items.cast(), count as u32) as usize;
            forget_front(burst, n);
            n
        }
    }

    /// Packets there is room for. The consumer can only make it more, so it is a credit.
    #[inline]
    pub fn free(&self) -> usize {
        self.ring.free()
    }

    /// Packets inside.
    #[inline]
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// True if nothing is inside.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Packets that fit into it altogether.
    pub fn capacity(&self) -> usize {
        self.ring.capacity()
    }
}

/// The end that packets come out of, in the order they went in.
pub struct Consumer<T: RingItem = Mbuf> {
    ring: Arc<RingInner>,
    carries: PhantomData<T>,
}

impl<T: RingItem> Consumer<T> {
    /// Appends packets to the burst, as many as there are and it has room for, and says how many.
    #[inline]
    pub fn pop(&mut self, burst: &mut Burst<T>) -> usize {
        // SAFETY: there is one consumer, borrowed mutably, and only `T` was put in.
        unsafe { self.ring.dequeue(burst) }
    }

    /// Packets inside.
    #[inline]
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// True if nothing is inside.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: RingItem> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("len", &self.len())
            .field("free", &self.free())
            .finish()
    }
}

impl<T: RingItem> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("len", &self.len())
            .finish()
    }
}

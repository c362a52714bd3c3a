//! Pools of mbufs.

use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use dpdk_sys as sys;
use shardgate_core::buffer::{Buffer, BufferPool, Meta};
use shardgate_core::limits::HEADROOM;

use crate::eal::{Eal, EalInner};
use crate::error::{Error, c_string};
use crate::mbuf::Mbuf;
use crate::{BURST, Burst};

/// Pools that could not be freed because packets of theirs were still out.
static LEAKED: AtomicUsize = AtomicUsize::new(0);

/// How many pools were given up while packets of theirs were still alive. Their memory stays, so
/// that those packets stay valid; a program that ends with a number other than 0 has lost packets.
pub fn leaked_pools() -> usize {
    LEAKED.load(Ordering::Relaxed)
}

/// A share of a pool of mbufs of one size. Clones share the pool.
#[derive(Clone)]
pub struct Pool(Arc<PoolInner>);

struct PoolInner {
    pool: NonNull<sys::rte_mempool>,
    name: String,
    size: usize,
    room: usize,
    eal: Option<Arc<EalInner>>,
}

// SAFETY: the mempool's operations are multi-producer and multi-consumer, its per-lcore caches belong
// to the lcore that calls, and threads that EAL does not know have none.
unsafe impl Send for PoolInner {}
// SAFETY: as above.
unsafe impl Sync for PoolInner {}

impl Pool {
    /// A pool of `count` mbufs with `data_room` bytes each, [`HEADROOM`] included, and a cache of
    /// `cache` mbufs on each lcore, in the memory of NUMA node `socket` (any, if absent).
    ///
    /// `preemptible` is for lcores that share a CPU: the default ring makes everybody wait for a
    /// producer that has lost its CPU in the middle of an operation; the relaxed tail (`ring_mt_rts`)
    /// does not, at a few more cycles.
    ///
    /// # Errors
    ///
    /// [`Error::BadSize`] if an mbuf is smaller than its headroom; [`Error::Dpdk`] if memory runs
    /// out, the name is taken or too long (26 bytes), or the cache is above 512 or `count` / 1.5.
    pub fn new(
        eal: &Eal,
        name: &str,
        count: usize,
        data_room: usize,
        cache: usize,
        socket: Option<u32>,
        preemptible: bool,
    ) -> Result<Pool, Error> {
        let bad = |reason: &str| Error::BadSize {
            what: format!("pool {name}"),
            reason: reason.to_owned(),
        };
        let room = data_room
            .checked_sub(HEADROOM)
            .filter(|&room| room > 0)
            .ok_or_else(|| bad("an mbuf must be larger than its headroom"))?;
        let data_room = u16::try_from(data_room)
            .map_err(|_| bad("an mbuf holds at most 65535 bytes, headroom included"))?;
        let size = u32::try_from(count).map_err(|_| bad("too many mbufs"))?;
        let cache = u32::try_from(cache).map_err(|_| bad("the cache is too large"))?;
        let c_name = c_string(name)?;
        let socket = socket.map_or(sys::SOCKET_ID_ANY, |socket| socket as i32);
        // By name even where it is the default: that can be replaced from outside by operations that
        // are not safe with several producers.
        let operations = if preemptible {
            c"ring_mt_rts"
        } else {
            c"ring_mp_mc"
        };
        // SAFETY: plain values, and strings that outlive the call.
        let pool = unsafe {
            sys::rte_pktmbuf_pool_create_by_ops(
                c_name.as_ptr(),
                size,
                cache,
                0,
                data_room,
                socket,
                operations.as_ptr(),
            )
        };
        let pool = NonNull::new(pool).ok_or_else(|| {
            Error::errno(
                "rte_pktmbuf_pool_create",
                format!("pool {name} of {count} mbufs"),
            )
        })?;
        Ok(Pool(Arc::new(PoolInner {
            pool,
            name: name.to_owned(),
            size: count,
            room,
            eal: Some(eal.inner()),
        })))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Mbufs in the pool and out of it.
    pub fn size(&self) -> usize {
        self.0.size
    }

    /// Bytes an mbuf holds behind its headroom.
    pub fn room(&self) -> usize {
        self.0.room
    }

    /// Mbufs at home, caches included. Counted, not for every packet; exact when nothing moves.
    pub fn available(&self) -> usize {
        self.0.available()
    }

    /// Mbufs that are out.
    pub fn in_use(&self) -> usize {
        self.size() - self.available()
    }

    /// Appends `n` empty packets to the burst, or none and false if the pool has fewer or the burst
    /// has no room for them.
    #[must_use]
    pub fn alloc_bulk(&self, burst: &mut Burst, n: usize) -> bool {
        let len = burst.len();
        if n > BURST - len {
            return false;
        }
        // SAFETY: the burst has room for n more, each a pointer; on success DPDK has written n
        // valid mbufs with one segment and one reference, and only then does the length cover them.
        let done = unsafe {
            let end = burst.as_mut_ptr().add(len).cast();
            let done = sys::shim_mbuf_alloc_bulk(self.as_ptr(), end, n as u32) == 0;
            if done {
                burst.set_len(len + n);
            }
            done
        };
        for mbuf in burst.iter_mut().skip(len) {
            mbuf.set_meta(Meta::default());
        }
        done
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::rte_mempool {
        self.0.pool.as_ptr()
    }
}

impl BufferPool for Pool {
    type Buffer = Mbuf;

    #[inline]
    fn alloc(&mut self) -> Option<Mbuf> {
        let mut mbuf = core::ptr::null_mut();
        // SAFETY: room for one pointer; on success it is a valid mbuf.
        let code = unsafe { sys::shim_mbuf_alloc_bulk(self.as_ptr(), &mut mbuf, 1) };
        let mbuf = NonNull::new(mbuf).filter(|_| code == 0)?;
        // SAFETY: a fresh mbuf has one segment and one reference, which is ours.
        let mut mbuf = unsafe { Mbuf::from_raw(mbuf) };
        mbuf.set_meta(Meta::default());
        Some(mbuf)
    }
}

impl PoolInner {
    fn available(&self) -> usize {
        // SAFETY: the pool is alive.
        unsafe { sys::rte_mempool_avail_count(self.pool.as_ptr()) as usize }
    }
}

impl Drop for PoolInner {
    fn drop(&mut self) {
        // The count can be too small while somebody gives an mbuf back, never too large: nobody is
        // left who could allocate.
        if self.available() == self.size {
            // SAFETY: every mbuf is home and the last share is going.
            unsafe { sys::rte_mempool_free(self.pool.as_ptr()) };
        } else {
            LEAKED.fetch_add(1, Ordering::Relaxed);
            // The packets that are out need the pool, and the pool needs EAL's memory.
            core::mem::forget(self.eal.take());
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.name())
            .field("size", &self.size())
            .field("available", &self.available())
            .finish()
    }
}

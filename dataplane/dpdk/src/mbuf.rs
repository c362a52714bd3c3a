//! Packets: owned, move-only, linear mbufs.

use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use dpdk_sys as sys;
use shardgate_core::buffer::{Buffer, Meta};

use crate::Burst;
use crate::error::Error;
use crate::ring::RingItem;

/// One packet in one segment, owned alone; dropping it gives it back to its pool.
///
/// There are two ways to get one, a pool and an rx queue, and both hand out only mbufs with a
/// single segment that nobody else references; nothing here can add a segment or a reference. So
/// the bytes from its data offset on are this value's alone.
#[repr(transparent)]
pub struct Mbuf(NonNull<sys::rte_mbuf>);

// SAFETY: the mbuf has one owner, and giving it back to its pool is safe from every thread: pools are
// made with multi-producer operations only. It is not `Sync`: nobody needs to share one.
unsafe impl Send for Mbuf {}

const _: () = assert!(size_of::<Mbuf>() == size_of::<*mut sys::rte_mbuf>());
const _: () = assert!(sys::RTE_PKTMBUF_HEADROOM as usize == shardgate_core::limits::HEADROOM);

/// Where [`Meta`] lies in every mbuf of this process; set once, before the first mbuf exists.
static META_OFFSET: AtomicUsize = AtomicUsize::new(0);

/// Reserves the dynamic field that holds [`Meta`].
pub(crate) fn register_meta() -> Result<(), Error> {
    let mut field = sys::rte_mbuf_dynfield {
        name: [0; 64],
        size: size_of::<Meta>(),
        align: align_of::<Meta>(),
        flags: 0,
    };
    for (to, from) in field.name.iter_mut().zip(b"shardgate_meta") {
        *to = *from as core::ffi::c_char;
    }
    // SAFETY: the description is complete and its name ends with a NUL.
    let offset = unsafe { sys::rte_mbuf_dynfield_register(&field) };
    let offset = usize::try_from(offset)
        .map_err(|_| Error::dpdk("rte_mbuf_dynfield_register", "shardgate_meta", offset))?;
    META_OFFSET.store(offset, Ordering::Relaxed);
    Ok(())
}

impl Mbuf {
    /// Takes over a packet.
    ///
    /// # Safety
    ///
    /// The mbuf has one segment and one reference, and that reference becomes this value's.
    pub(crate) unsafe fn from_raw(mbuf: NonNull<sys::rte_mbuf>) -> Self {
        Self(mbuf)
    }

    /// The index of the port that received it.
    #[inline]
    pub fn port(&self) -> u16 {
        self.header().port
    }

    #[inline]
    fn header(&self) -> &sys::rte_mbuf {
        // SAFETY: the pointer is valid and this value is the mbuf's only owner.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn header_mut(&mut self) -> &mut sys::rte_mbuf {
        // SAFETY: the pointer is valid and this value is the mbuf's only owner.
        unsafe { self.0.as_mut() }
    }

    /// Changes where the data starts and how long it is, keeping both lengths of the header equal.
    #[inline]
    fn set_data(&mut self, offset: usize, len: usize) {
        let header = self.header_mut();
        debug_assert!(offset + len <= usize::from(header.buf_len));
        header.data_off = offset as u16;
        header.data_len = len as u16;
        header.pkt_len = len as u32;
    }

    #[inline]
    fn offset(&self) -> usize {
        usize::from(self.header().data_off)
    }

    #[inline]
    fn meta_ptr(&self) -> *mut Meta {
        // SAFETY: the offset lies inside the mbuf's header: DPDK reserved the field there.
        unsafe {
            self.0
                .as_ptr()
                .byte_add(META_OFFSET.load(Ordering::Relaxed))
                .cast()
        }
    }
}

impl Buffer for Mbuf {
    #[inline]
    fn data(&self) -> &[u8] {
        let header = self.header();
        // SAFETY: offset and length stay inside the segment's memory, which was initialised when
        // its pool was mapped and is this value's alone.
        unsafe {
            core::slice::from_raw_parts(
                header
                    .buf_addr
                    .cast::<u8>()
                    .add(usize::from(header.data_off)),
                usize::from(header.data_len),
            )
        }
    }

    #[inline]
    fn data_mut(&mut self) -> &mut [u8] {
        let header = self.header_mut();
        // SAFETY: as for `data`, and `self` is borrowed mutably.
        unsafe {
            core::slice::from_raw_parts_mut(
                header
                    .buf_addr
                    .cast::<u8>()
                    .add(usize::from(header.data_off)),
                usize::from(header.data_len),
            )
        }
    }

    #[inline]
    fn headroom(&self) -> usize {
        self.offset()
    }

    #[inline]
    fn tailroom(&self) -> usize {
        usize::from(self.header().buf_len) - self.offset() - self.len()
    }

    #[inline]
    fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        let offset = self.offset().checked_sub(n)?;
        self.set_data(offset, self.len() + n);
        self.data_mut().get_mut(..n)
    }

    #[inline]
    fn append(&mut self, n: usize) -> Option<&mut [u8]> {
        if n > self.tailroom() {
            return None;
        }
        let len = self.len();
        self.set_data(self.offset(), len + n);
        self.data_mut().get_mut(len..)
    }

    #[inline]
    fn trim_front(&mut self, n: usize) -> bool {
        let Some(len) = self.len().checked_sub(n) else {
            return false;
        };
        self.set_data(self.offset() + n, len);
        true
    }

    #[inline]
    fn trim_back(&mut self, n: usize) -> bool {
        let Some(len) = self.len().checked_sub(n) else {
            return false;
        };
        self.set_data(self.offset(), len);
        true
    }

    /// Of a received packet: whatever the mbuf's previous owner left, until the rx lcore stamps it.
    #[inline]
    fn meta(&self) -> Meta {
        // SAFETY: the field is reserved, aligned and inside the header; every pattern of bits is a
        // valid `Meta`.
        unsafe { self.meta_ptr().read() }
    }

    #[inline]
    fn set_meta(&mut self, meta: Meta) {
        // SAFETY: as for `meta`, and `self` is borrowed mutably.
        unsafe { self.meta_ptr().write(meta) }
    }

    #[inline]
    fn len(&self) -> usize {
        usize::from(self.header().data_len)
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this value owns the mbuf's only reference, and gives it up here.
        unsafe { sys::shim_mbuf_free(self.0.as_ptr()) };
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mbuf")
            .field("len", &self.len())
            .field("headroom", &self.headroom())
            .field("tailroom", &self.tailroom())
            .finish()
    }
}

/// Frees a whole burst in one call.
#[inline]
pub fn free_burst<T: RingItem>(burst: &mut Burst<T>) {
    let (items, count) = raw_parts(burst);
    // SAFETY: the burst's items are owned mbufs and nothing else (`RingItem`); the length is set to
    // zero, so nobody else frees them. DPDK takes an array of pointers, which is what they are.
    unsafe {
        burst.set_len(0);
        sys::rte_pktmbuf_free_bulk(items, count as u32);
    }
}

/// The burst as the array that C expects, and how many packets are in it.
#[inline]
pub(crate) fn raw_parts<T: RingItem>(burst: &mut Burst<T>) -> (*mut *mut sys::rte_mbuf, usize) {
    const { assert!(size_of::<T>() == size_of::<Mbuf>() && align_of::<T>() == align_of::<Mbuf>()) };
    (burst.as_mut_ptr().cast(), burst.len())
}

/// Forgets the first `count` packets, which somebody else owns now, and moves the rest to the front.
///
/// # Safety
///
/// `count` is at most the burst's length, and the first `count` packets have been given away.
#[inline]
pub(crate) unsafe fn forget_front<T: RingItem>(burst: &mut Burst<T>, count: usize) {
    let rest = burst.len() - count;
    let items = burst.as_mut_ptr();
    // SAFETY: both ranges lie inside the burst, and the length then covers exactly the packets that
    // are still owned.
    unsafe {
        core::ptr::copy(items.add(count), items, rest);
        burst.set_len(rest);
    }
}

//! Crypto devices: which there are, and what they can do. Sealing on them is the dataplane's.

use core::ffi::CStr;
use core::mem::MaybeUninit;
use std::sync::Arc;

use dpdk_sys as sys;

use crate::eal::{Eal, EalInner};
use crate::error::{Error, c_string};

/// Lengths in bytes that the tunnel protocol uses with AES-256-GCM: key, tag, additional data (the
/// clear header) and IV.
const KEY_LEN: u16 = 32;
const TAG_LEN: u16 = 16;
const AAD_LEN: u16 = 16;
const IV_LEN: u16 = 12;

/// What a crypto device says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CryptoDevice {
    /// DPDK's index of it.
    pub id: u8,
    /// Its name: a PCI address, or the vdev's name.
    pub name: String,
    /// The driver, for example `crypto_aesni_gcm`.
    pub driver: String,
    /// Most queue pairs it opens.
    pub max_queue_pairs: u32,
    /// It is hardware, and not this CPU.
    pub hardware: bool,
    /// It also works synchronously, without a queue.
    pub synchronous: bool,
    /// It works in place on packets of several segments.
    pub in_place_segments: bool,
    /// It does AES-256-GCM with the lengths of the tunnel protocol.
    pub aes_256_gcm: bool,
    /// All its feature flags (`RTE_CRYPTODEV_FF_*`).
    pub feature_flags: u64,
    /// NUMA node, if it has one.
    pub socket: Option<u32>,
}

impl CryptoDevice {
    /// Every crypto device that EAL knows.
    pub fn list(_eal: &Eal) -> Vec<CryptoDevice> {
        (0..=u8::MAX)
            .filter_map(|id| Self::describe(id).ok())
            .collect()
    }

    fn describe(id: u8) -> Result<CryptoDevice, Error> {
        let mut info = MaybeUninit::uninit();
        // SAFETY: plain values; a device that does not exist is refused, and on success the whole
        // structure is written.
        let info = unsafe {
            let code =
                sys::shim_crypto_info(id, KEY_LEN, TAG_LEN, AAD_LEN, IV_LEN, info.as_mut_ptr());
            if code != 0 {
                return Err(Error::dpdk(
                    "rte_cryptodev_info_get",
                    format!("device {id}"),
                    code,
                ));
            }
            info.assume_init()
        };
        // SAFETY: the device exists; its name lives as long as it, its driver's name for ever.
        let (name, driver, socket) = unsafe {
            (
                CStr::from_ptr(sys::rte_cryptodev_name_get(id)),
                CStr::from_ptr(info.driver_name),
                sys::rte_cryptodev_socket_id(id),
            )
        };
        Ok(CryptoDevice {
            id,
            name: name.to_string_lossy().into_owned(),
            driver: driver.to_string_lossy().into_owned(),
            max_queue_pairs: info.max_queue_pairs,
            hardware: info.hardware != 0,
            synchronous: info.cpu_crypto != 0,
            in_place_segments: info.in_place_sgl != 0,
            aes_256_gcm: info.aes_gcm != 0,
            feature_flags: info.feature_flags,
            socket: u32::try_from(socket).ok(),
        })
    }
}

/// A virtual crypto device that this process made; it goes when this value goes.
#[derive(Debug)]
pub struct CryptoVdev {
    device: CryptoDevice,
    eal: Arc<EalInner>,
}

impl CryptoVdev {
    /// Makes a vdev from its name and arguments, for example `crypto_aesni_gcm0`.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceInUse`], [`Error::Dpdk`] if there is no such driver or it refuses, and
    /// [`Error::DeviceMissing`] if it fails without saying so.
    pub fn create(eal: &Eal, device: &str) -> Result<CryptoVdev, Error> {
        let (name, arguments) = device.split_once(',').unwrap_or((device, ""));
        let c_name = c_string(name)?;
        let c_arguments = c_string(arguments)?;
        let eal = eal.inner();
        eal.claim(name)?;
        // SAFETY: strings that outlive the call.
        let code = unsafe {
            sys::rte_eal_hotplug_add(c"vdev".as_ptr(), c_name.as_ptr(), c_arguments.as_ptr())
        };
        if code != 0 {
            eal.release(name);
            return Err(Error::dpdk("rte_eal_hotplug_add", device, code));
        }
        // SAFETY: a look-up by a string that outlives the call.
        let id = unsafe { sys::rte_cryptodev_get_dev_id(c_name.as_ptr()) };
        let found = u8::try_from(id)
            .map_err(|_| Error::DeviceMissing(device.to_owned()))
            .and_then(CryptoDevice::describe);
        match found {
            Ok(device) => Ok(CryptoVdev { device, eal }),
            Err(error) => {
                remove(name);
                eal.release(name);
                Err(error)
            }
        }
    }

    /// What it says about itself.
    pub fn device(&self) -> &CryptoDevice {
        &self.device
    }
}

fn remove(name: &str) {
    if let Ok(name) = c_string(name) {
        // SAFETY: strings that outlive the call; the device is not started.
        unsafe { sys::rte_eal_hotplug_remove(c"vdev".as_ptr(), name.as_ptr()) };
    }
}

impl Drop for CryptoVdev {
    fn drop(&mut self) {
        remove(&self.device.name);
        self.eal.release(&self.device.name);
    }
}

//! Crypto device discovery on virtual devices.

mod common;

use std::io::Write;

use common::eal;
use shardgate_dpdk::{CryptoDevice, CryptoVdev, Error};

#[test]
fn virtual_crypto_devices_are_found_and_described() {
    let names = || {
        CryptoDevice::list(eal())
            .into_iter()
            .map(|device| device.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(names(), Vec::<String>::new());

    // Not every build of DPDK has every driver; null is always there and does no AEAD.
    let null = CryptoVdev::create(eal(), "crypto_null0").expect("the null driver");
    assert!(!null.device().aes_256_gcm && null.device().max_queue_pairs > 0);
    assert!(matches!(
        CryptoVdev::create(eal(), "crypto_null0"),
        Err(Error::DeviceInUse(_))
    ));
    assert!(CryptoVdev::create(eal(), "crypto_no_such_driver0").is_err());

    match CryptoVdev::create(eal(), "crypto_aesni_gcm0,max_nb_queue_pairs=4") {
        Ok(gcm) => {
            let device = gcm.device();
            assert_eq!(
                (device.name.as_str(), device.driver.as_str()),
                ("crypto_aesni_gcm0", "crypto_aesni_gcm")
            );
            assert!(
                device.aes_256_gcm && device.synchronous && !device.hardware,
                "{device:?}"
            );
            assert_eq!(device.max_queue_pairs, 4);
            assert_eq!(
                CryptoDevice::list(eal()).get(usize::from(device.id)),
                Some(device)
            );
            assert_eq!(names(), ["crypto_null0", "crypto_aesni_gcm0"]);
        }
        // Not by a macro: the harness would keep it to itself, because the test passes.
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "skipped: crypto_aesni_gcm: {error}");
        }
    }
    assert_eq!(names(), ["crypto_null0"], "a vdev goes with its owner");
    drop(null);
    assert!(names().is_empty());
    drop(CryptoVdev::create(eal(), "crypto_null0").expect("the name is free again"));
}

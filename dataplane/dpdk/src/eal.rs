//! The environment abstraction layer: one per process, and what runs on its lcores.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicBool, Ordering};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dpdk_sys as sys;

use crate::error::{Error, c_string};
use crate::lcore::LcoreId;
use crate::{mbuf, tsc};

/// How much DPDK and its drivers say, on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Errors only.
    Error,
    /// Also warnings.
    #[default]
    Warning,
    /// Also what the drivers set up.
    Info,
    /// Everything.
    Debug,
}

impl LogLevel {
    fn argument(self) -> &'static str {
        match self {
            LogLevel::Error => "--log-level=error",
            LogLevel::Warning => "--log-level=warning",
            LogLevel::Info => "--log-level=info",
            LogLevel::Debug => "--log-level=debug",
        }
    }
}

/// How EAL starts.
#[derive(Clone, Debug)]
pub struct EalConfig {
    /// EAL's `--lcores` map, for example `(0-3)@(0-1)`: four lcores that share two CPUs.
    pub lcores: String,
    /// The lcore of the thread that calls [`Eal::init`]; without it the lowest.
    pub main_lcore: Option<u32>,
    /// Memory from hugepages, which leaves no file behind (`--in-memory`); or without them
    /// (`--no-huge`).
    pub hugepages: bool,
    /// Megabytes to set aside at start. Without it hugepages are taken as needed, and a start
    /// without hugepages gets EAL's default of 64.
    pub memory_mb: Option<u32>,
    /// What tells apart several DPDK processes on one machine.
    pub file_prefix: String,
    /// Scan the PCI bus.
    pub pci: bool,
    /// How much DPDK says.
    pub log_level: LogLevel,
    /// Further EAL arguments, last on the command line (`-a` with a PCI address allows a device).
    pub extra_args: Vec<String>,
}

impl Default for EalConfig {
    /// One lcore on CPU 0, hugepages, vdevs only.
    fn default() -> Self {
        Self {
            lcores: "0".to_owned(),
            main_lcore: None,
            hugepages: true,
            memory_mb: None,
            file_prefix: "shardgate".to_owned(),
            pci: false,
            log_level: LogLevel::default(),
            extra_args: Vec::new(),
        }
    }
}

impl EalConfig {
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["shardgate".to_owned()];
        arguments.push(format!("--lcores={}", self.lcores));
        if let Some(lcore) = self.main_lcore {
            arguments.push(format!("--main-lcore={lcore}"));
        }
        // DPDK refuses --no-huge together with --in-memory.
        let memory: &[&str] = if self.hugepages {
            &["--in-memory"]
        } else {
            &["--no-huge", "--no-shconf"]
        };
        arguments.extend(memory.iter().map(|&argument| argument.to_owned()));
        if let Some(megabytes) = self.memory_mb {
            arguments.extend(["-m".to_owned(), megabytes.to_string()]);
        }
        arguments.push(format!("--file-prefix={}", self.file_prefix));
        if !self.pci {
            arguments.push("--no-pci".to_owned());
        }
        // The program has a stats endpoint of its own; DPDK's would leave a socket behind.
        arguments.push("--no-telemetry".to_owned());
        arguments.push(self.log_level.argument().to_owned());
        arguments.extend(self.extra_args.iter().cloned());
        arguments
    }
}

/// What everything made from an [`Eal`] holds, so that EAL outlives it.
#[derive(Debug)]
pub(crate) struct EalInner {
    /// EAL's launch is a conversation over one pipe per lcore.
    launch: Mutex<()>,
    /// Devices that a [`crate::Port`] or a [`crate::CryptoVdev`] owns.
    claimed: Mutex<BTreeSet<String>>,
}

impl EalInner {
    /// Takes a device for one owner, or says that it has one.
    pub(crate) fn claim(&self, device: &str) -> Result<(), Error> {
        if lock(&self.claimed).insert(device.to_owned()) {
            Ok(())
        } else {
            Err(Error::DeviceInUse(device.to_owned()))
        }
    }

    pub(crate) fn release(&self, device: &str) {
        lock(&self.claimed).remove(device);
    }
}

impl Drop for EalInner {
    fn drop(&mut self) {
        // SAFETY: EAL is initialised (only `Eal::init` makes this value), and nothing that came
        // from it is left: all of it holds a share of this value.
        unsafe { sys::rte_eal_cleanup() };
    }
}

/// A panic elsewhere leaves these tables whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The initialised EAL. `rte_eal_cleanup` runs when it and everything made from it is gone.
pub struct Eal {
    inner: Arc<EalInner>,
}

impl core::fmt::Debug for Eal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Eal")
            .field("lcores", &self.lcores())
            .finish()
    }
}

impl Eal {
    /// Starts EAL; the calling thread becomes the main lcore and is pinned to its CPUs. Threads
    /// started later inherit that pinning.
    ///
    /// Measures the TSC on the way, which makes a start at least 100 ms long.
    ///
    /// # Errors
    ///
    /// [`Error::EalTwice`] from the second call in a process on, even if the first one failed or its
    /// `Eal` is gone: DPDK does not support it. [`Error::Dpdk`] if EAL refuses; its reason is on
    /// stderr.
    pub fn init(config: &EalConfig) -> Result<Eal, Error> {
        static CALLED: AtomicBool = AtomicBool::new(false);
        let arguments: Vec<_> = config
            .arguments()
            .iter()
            .map(|a| c_string(a))
            .collect::<Result<_, _>>()?;
        if CALLED.swap(true, Ordering::SeqCst) {
            return Err(Error::EalTwice);
        }
        let start = tsc::Reading::take();
        let mut argv: Vec<*mut c_char> = arguments
            .iter()
            .map(|argument| argument.as_ptr().cast_mut())
            .collect();
        argv.push(core::ptr::null_mut());
        // SAFETY: sets a stream before EAL starts; stderr lives as long as the process.
        unsafe { sys::shim_log_to_stderr() };
        // SAFETY: argv has argc strings and a null; EAL may reorder the pointers, copies what it
        // keeps and does not write to the strings. This is the only call in the process.
        let code = unsafe { sys::rte_eal_init(arguments.len() as c_int, argv.as_mut_ptr()) };
        if code < 0 {
            return Err(Error::dpdk(
                "rte_eal_init",
                format!("lcores {}", config.lcores),
                code,
            ));
        }
        // From here on an early return cleans up.
        let eal = Eal {
            inner: Arc::new(EalInner {
                launch: Mutex::new(()),
                claimed: Mutex::default(),
            }),
        };
        remove_empty_runtime_dir();
        mbuf::register_meta()?;
        // SAFETY: reads a value that EAL has set.
        tsc::calibrate(start, unsafe { sys::rte_get_tsc_hz() });
        Ok(eal)
    }

    pub(crate) fn inner(&self) -> Arc<EalInner> {
        Arc::clone(&self.inner)
    }

    /// All lcores, the main one included, in ascending order.
    pub fn lcores(&self) -> Vec<LcoreId> {
        (0..sys::RTE_MAX_LCORE)
            // SAFETY: a table look-up inside the table.
            .filter(|&id| unsafe { sys::rte_lcore_is_enabled(id) } != 0)
            .map(LcoreId)
            .collect()
    }

    /// The lcore of the thread that called [`Eal::init`].
    pub fn main_lcore(&self) -> LcoreId {
        // SAFETY: reads a value that EAL has set.
        LcoreId(unsafe { sys::rte_get_main_lcore() })
    }

    /// Runs `f` on a worker lcore, from any thread.
    ///
    /// # Errors
    ///
    /// [`Error::NotAWorker`], or [`Error::Dpdk`] if the lcore is still running something else.
    pub fn launch<F, T>(&self, lcore: LcoreId, f: F) -> Result<LcoreHandle<T>, Error>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        if lcore == self.main_lcore() || !self.lcores().contains(&lcore) {
            return Err(Error::NotAWorker(lcore));
        }
        let (done, result) = channel();
        let job = Box::into_raw(Box::new(Job { f, done }));
        let guard = lock(&self.inner.launch);
        // SAFETY: `run_job` for these types takes the job that it is given, once; the lcore exists.
        let code =
            unsafe { sys::rte_eal_remote_launch(Some(run_job::<F, T>), job.cast(), lcore.0) };
        drop(guard);
        if code != 0 {
            // SAFETY: the launch was refused, so nobody else has the job.
            drop(unsafe { Box::from_raw(job) });
            return Err(Error::dpdk(
                "rte_eal_remote_launch",
                format!("lcore {lcore}"),
                code,
            ));
        }
        Ok(LcoreHandle {
            lcore,
            result,
            joined: false,
            _eal: self.inner(),
        })
    }

    /// DPDK's version, for example `DPDK 22.11.11`.
    pub fn dpdk_version() -> String {
        // SAFETY: a static string.
        unsafe { CStr::from_ptr(sys::rte_version()) }
            .to_string_lossy()
            .into_owned()
    }
}

/// A start without hugepages makes a directory for files that it then does not write, and never
/// removes it.
fn remove_empty_runtime_dir() {
    // SAFETY: a string that EAL has set.
    let directory = unsafe { CStr::from_ptr(sys::rte_eal_get_runtime_dir()) };
    // Somebody's files are in it, if it cannot be removed.
    let _ = std::fs::remove_dir(OsStr::from_bytes(directory.to_bytes()));
}

struct Job<F, T> {
    f: F,
    done: Sender<std::thread::Result<T>>,
}

/// What EAL runs on the lcore.
///
/// # Safety
///
/// `job` is a `Box<Job<F, T>>` that the call may take.
unsafe extern "C" fn run_job<F: FnOnce() -> T, T>(job: *mut c_void) -> c_int {
    // SAFETY: by this function's contract.
    let Job { f, done } = *unsafe { Box::from_raw(job.cast::<Job<F, T>>()) };
    // Unwind safety: a panic takes everything that `f` owned with it.
    let result = catch_unwind(AssertUnwindSafe(f));
    // The handle waits for this even when it is dropped, so there is always a receiver.
    let _ = done.send(result);
    0
}

/// A closure running on an lcore. It is never detached: dropping the handle waits for its end.
#[must_use = "dropping the handle waits until the lcore's closure has returned"]
pub struct LcoreHandle<T> {
    lcore: LcoreId,
    result: Receiver<std::thread::Result<T>>,
    joined: bool,
    /// EAL cannot be cleaned up under a running lcore.
    _eal: Arc<EalInner>,
}

impl<T> LcoreHandle<T> {
    /// The lcore it runs on.
    pub fn lcore(&self) -> LcoreId {
        self.lcore
    }

    /// Waits, asleep, until the closure has returned, and gives its result.
    ///
    /// # Errors
    ///
    /// [`Error::LcorePanicked`]. A program built with `panic = "abort"` ends at the panic instead.
    pub fn join(mut self) -> Result<T, Error> {
        self.wait().map_err(|message| Error::LcorePanicked {
            lcore: self.lcore,
            message,
        })
    }

    fn wait(&mut self) -> Result<T, String> {
        self.joined = true;
        let result = self.result.recv();
        // SAFETY: the lcore exists. EAL spins here, but the closure is over: it takes a moment.
        unsafe { sys::rte_eal_wait_lcore(self.lcore.0) };
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(panic)) => Err(panic_message(&*panic)),
            Err(_) => Err("it ended without a result".to_owned()),
        }
    }
}

impl<T> Drop for LcoreHandle<T> {
    fn drop(&mut self) {
        if !self.joined {
            // Whoever drops the handle has given up the result, a panic included.
            drop(self.wait());
        }
    }
}

impl<T> core::fmt::Debug for LcoreHandle<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("LcoreHandle")
            .field("lcore", &self.lcore)
            .finish_non_exhaustive()
    }
}

fn panic_message(panic: &(dyn core::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_never_combine_what_dpdk_refuses() {
        for hugepages in [false, true] {
            let arguments = EalConfig {
                hugepages,
                ..EalConfig::default()
            }
            .arguments();
            let has = |argument: &str| arguments.iter().any(|a| a == argument);
            assert_eq!(has("--in-memory"), hugepages);
            assert_eq!(has("--no-huge"), !hugepages);
            assert_eq!(has("--no-shconf"), !hugepages);
        }
    }
}

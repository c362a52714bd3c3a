//! The library against a folder laid out like a machine's `/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use shardgate_hugepages::{HugepageError, Hugepages, Mount, MountNeed, PageSize, Pool};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A root folder that goes away with the test.
struct Root(PathBuf);

impl Root {
    /// 2 MiB and 1 GiB pages, none of them there, nothing mounted.
    fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("shardgate-hugepages-{}-{number}", std::process::id());
        let root = Self(std::env::temp_dir().join(name));
        root.set_pool("2048", 0, 0, 0);
        root.set_pool("1048576", 0, 0, 0);
        root.write("proc/mounts", "proc /proc proc rw,nosuid 0 0\n");
        root.write(
            "proc/meminfo",
            // 4 GiB, a quarter of it in use: the margin is a tenth of 4 GiB.
            "MemTotal: 4194304 kB\nMemAvailable:    3145728 kB\nHugepagesize:       2048 kB\n",
        );
        root
    }

    fn write(&self, file: &str, text: &str) {
        let file = self.0.join(file);
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::write(file, text).expect("a file");
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).expect("a file")
    }

    fn set_pool(&self, kib: &str, total: u64, free: u64, reserved: u64) {
        for (name, count) in [("nr", total), ("free", free), ("resv", reserved)] {
            let file = format!("sys/kernel/mm/hugepages/hugepages-{kib}kB/{name}_hugepages");
            self.write(&file, &format!("{count}\n"));
        }
    }

    fn hugepages(&self) -> Hugepages {
        Hugepages::at(&self.0)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn one_line(error: &HugepageError) -> String {
    let text = error.to_string();
    assert!(
        !text.contains('\n') && text.contains(';'),
        "one line with a remedy: {text}"
    );
    text
}

#[test]
fn pools_are_listed_by_size() {
    let root = Root::new();
    root.set_pool("2048", 512, 300, 44);
    root.write("sys/kernel/mm/hugepages/other/file", "");
    let pools = root.hugepages().pools().expect("pools");
    assert_eq!(
        pools[0],
        Pool {
            size: PageSize::MIB_2,
            total: 512,
            free: 300,
            reserved: 44
        }
    );
    assert_eq!(pools[0].available(), 256);
    assert_eq!(pools[1].size, PageSize::GIB_1);
    assert_eq!(pools.len(), 2);
}

#[test]
fn mounts_name_their_page_size_or_have_the_default() {
    let root = Root::new();
    root.write(
        "proc/mounts",
        "hugetlbfs /dev/hugepages hugetlbfs rw,relatime 0 0\n\
         none /mnt/huge\\0401g hugetlbfs rw,pagesize=1024M 0 0\n\
         tmpfs /hugetlbfs tmpfs rw 0 0\n\
         short\n",
    );
    assert_eq!(
        root.hugepages().mounts().expect("mounts"),
        [
            Mount {
                dir: "/dev/hugepages".into(),
                size: PageSize::MIB_2
            },
            Mount {
                dir: "/mnt/huge 1g".into(),
                size: PageSize::GIB_1
            },
        ]
    );
}

#[test]
fn reserving_fills_and_never_shrinks() {
    let root = Root::new();
    let nr = "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
    let pages = root.hugepages();
    assert_eq!(pages.reserve(PageSize::MIB_2, 256).expect("256").total, 256);
    assert_eq!(root.read(nr), "256");
    assert_eq!(pages.reserve(PageSize::MIB_2, 100).expect("100").total, 256);
    assert_eq!(root.read(nr), "256");
    let size = PageSize::from_kib(64).expect("a size");
    let error = pages.reserve(size, 1).expect_err("no such size");
    assert!(one_line(&error).contains("64 KiB"));
}

#[test]
fn more_than_the_machine_can_spare_is_refused_and_nothing_written() {
    let root = Root::new();
    root.set_pool("2048", 10, 10, 0);
    let nr = "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
    // 3072 MiB less a tenth of 4096: 2662 MiB and a bit, 1331 pages beside the 10 there are.
    for count in [1342, u64::MAX] {
        let error = root
            .hugepages()
            .reserve(PageSize::MIB_2, count)
            .expect_err("too much");
        let text = one_line(&error);
        assert!(text.contains("2662 MB can be had"), "{text}");
        assert!(text.contains("409 MB for the rest"), "{text}");
        assert_eq!(root.read(nr), "10\n");
    }
    assert!(root.hugepages().reserve(PageSize::MIB_2, 1341).is_ok());
    assert_eq!(root.read(nr), "1341");
    root.write("proc/meminfo", "MemTotal: 1 kB\n");
    let error = root.hugepages().reserve(PageSize::MIB_2, 2000);
    assert!(one_line(&error.expect_err("no MemAvailable")).contains("meminfo"));
}

#[test]
fn preflight_counts_what_is_free_and_not_promised() {
    let root = Root::new();
    let pages = root.hugepages();
    root.set_pool("2048", 300, 200, 72);
    assert!(pages.preflight(256, MountNeed::NotRequired).is_ok());
    let error = pages
        .preflight(257, MountNeed::NotRequired)
        .expect_err("too much");
    // 172 pages are spoken for and 257 MB are wanted beside them.
    let text = one_line(&error);
    assert!(
        text.contains("257 MB of hugepages needed, 256 MB available"),
        "{text}"
    );
    assert!(text.contains("reserve 601M"), "{text}");

    let error = pages
        .preflight(256, MountNeed::Required)
        .expect_err("no mount");
    assert!(matches!(
        error,
        HugepageError::NotMounted { megabytes: 256 }
    ));
    one_line(&error);
    root.write(
        "proc/mounts",
        "h /dev/hugepages hugetlbfs rw,pagesize=2M 0 0\n",
    );
    let pools = pages.preflight(256, MountNeed::Required).expect("enough");
    assert_eq!(pools.len(), 1, "1 GiB pages are not mounted");
}

#[test]
fn a_mount_that_is_there_is_used() {
    let root = Root::new();
    root.write("proc/mounts", "h /mnt/h hugetlbfs rw,pagesize=2M 0 0\n");
    let mount = root.hugepages().mount(PageSize::MIB_2).expect("a mount");
    assert_eq!(mount.dir, Path::new("/mnt/h"));
    let names = |size| root.hugepages().mount_dir(size).expect("a folder");
    assert_eq!(names(PageSize::MIB_2), Path::new("dev/hugepages"));
    assert_eq!(names(PageSize::GIB_1), Path::new("dev/hugepages-1048576kB"));
}

#[test]
fn persisting_writes_and_enables_a_unit() {
    let root = Root::new();
    for count in [128, 256] {
        let unit = root
            .hugepages()
            .persist(PageSize::MIB_2, count)
            .expect("a unit");
        let text = fs::read_to_string(unit).expect("the unit");
        assert!(text.contains(&format!("echo {count} > ")), "{text}");
        assert!(
            text.contains("pagesize=2048K hugetlbfs /dev/hugepages"),
            "{text}"
        );
        assert!(!text.contains('@'), "{text}");
        let wanted = "etc/systemd/system/sysinit.target.wants/shardgate-hugepages.service";
        assert_eq!(root.read(wanted), text, "the link leads to the unit");
    }
}

#[test]
fn a_machine_without_hugepages_or_with_odd_files_is_an_error() {
    let root = Root::new();
    root.write(
        "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages",
        "many\n",
    );
    let error = root.hugepages().pools().expect_err("not a number");
    assert!(one_line(&error).contains("free_hugepages"));
    root.write("proc/meminfo", "Hugepagesize: 7 kB\n");
    assert!(root.hugepages().default_size().is_err());
    let nowhere = Hugepages::at(root.0.join("nowhere"));
    let error = nowhere.pools().expect_err("no folder");
    assert!(matches!(error, HugepageError::Unsupported { .. }));
    one_line(&error);
    one_line(&nowhere.mounts().expect_err("no file"));
}

/// On a real machine the same code reads the kernel's own files.
#[test]
fn this_machine_agrees_with_meminfo() {
    let total = || -> u64 {
        let meminfo = fs::read_to_string("/proc/meminfo").expect("meminfo");
        let line = meminfo
            .lines()
            .find_map(|line| line.strip_prefix("HugePages_Total:"));
        line.and_then(|count| count.trim().parse().ok())
            .unwrap_or(0)
    };
    let Ok(size) = Hugepages::new().default_size() else {
        eprintln!("skipped: this kernel has no hugepages");
        return;
    };
    // Somebody else may be changing the pool: look until it held still around our look.
    let agreed = (0..100).any(|_| {
        let before = total();
        let pool = Hugepages::new().pool(size).expect("the default pool");
        total() == before && pool.total == before
    });
    assert!(agreed);
}

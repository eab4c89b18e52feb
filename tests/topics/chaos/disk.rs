//! A real filesystem that is full, and one that turns read-only, under a running service.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::repeats;
use super::scene::Scene;
use crate::support::weir::eventually;

const SIZE: &str = "size=48m";
const TOLD_WITHIN: Duration = Duration::from_secs(60);
const BACK_WITHIN: Duration = Duration::from_secs(120);

/// A small filesystem in memory; unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    /// None where this process may not mount, which is printed.
    fn at(folder: &Path) -> Option<Self> {
        std::fs::create_dir_all(folder).expect("a temporary folder");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "weir-test"]).arg(folder).output();
        match output {
            Ok(output) if output.status.success() => Some(Self(folder.to_owned())),
            Ok(output) => {
                eprintln!("not run, since nothing can be mounted here: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(error) => {
                eprintln!("not run, since there is no `mount` here: {error}");
                None
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Again and again, since somebody may be writing at the moment.
fn remount(folder: &Path, mode: &str) {
    eventually("the filesystem changes its mode", TOLD_WITHIN, || {
        let output = Command::new("mount").args(["-o", &format!("remount,{mode}")]).arg(folder).output();
        output.is_ok_and(|output| output.status.success())
    });
}

/// Takes all the room that is left; gives the file that has it.
fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("ballast");
    let mut file = std::fs::File::create(&path).expect("there is room for a name");
    for block in [1 << 20, 1 << 12] {
        while file.write_all(&vec![7; block]).is_ok() {}
    }
    path
}

/// While `harm` is done to the disk the service says so and stays; once it is mended, it goes on by itself.
fn survives(database: &'static str, seed: u64, fault: &str, harm: impl Fn(&Mount) -> Box<dyn FnOnce()>) {
    let mut scene = Scene::direct(database, seed);
    let Some(mount) = Mount::at(&scene.weir.warehouse()) else { return };
    scene.weir.catch_up();
    for _ in 0..repeats() {
        let mut service = scene.weir.run_until_it_is_seen();
        let said_before = service.log().len();
        let writers = scene.write();
        std::thread::sleep(Duration::from_millis(500 + scene.random.below(500)));
        let mend = harm(&mount);
        eventually("the harm is told", TOLD_WITHIN, || {
            let log = service.log();
            assert!(service.is_running(), "{log}");
            let log = &log[said_before..];
            log.contains("No space left") || log.contains("Read-only file system")
        });
        std::thread::sleep(Duration::from_secs(1));
        mend();
        assert!(writers.stop(), "the writers failed");
        scene.mysql.run(&format!("INSERT INTO {database}.x (v) VALUES (3)"));
        let rows = scene.mysql.value(&format!("SELECT COUNT(*) FROM {database}.x")).parse().expect("a number");
        eventually("the stream goes on", BACK_WITHIN, || scene.weir.has_rows(&format!("{database}.x"), rows));
        scene.outlived(service, fault, "said so, waited, and went on by itself");
    }
}

#[test]
fn a_full_disk_is_told_and_waited_for() {
    survives("full", 9_009, "the warehouse's disk is full (tmpfs)", |mount| {
        let ballast = fill(&mount.0);
        Box::new(move || std::fs::remove_file(ballast).expect("the ballast is there"))
    });
}

#[test]
fn a_read_only_disk_is_told_and_waited_for() {
    survives("readonly", 9_010, "the warehouse's disk turns read-only (tmpfs)", |mount| {
        remount(&mount.0, "ro");
        let folder = mount.0.clone();
        Box::new(move || remount(&folder, "rw"))
    });
}

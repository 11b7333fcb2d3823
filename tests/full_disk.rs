//! A full disk refuses every command but a rollback, which still moves users' traffic.
#![allow(clippy::print_stdout)] // a skipped test says so

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::installation::{Installation, eventually};
use support::load::Load;

/// A small file system of its own under the data folder, gone with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one, or says why it cannot.
    fn mount(at: &Path, megabytes: u32) -> Result<Self, String> {
        fs::create_dir_all(at).unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Self(at.to_owned())),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(format!("mount: {error}")),
        }
    }

    /// Fills it to the last byte and returns the file that does.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = fs::File::create(&path).unwrap();
        let mut size = 1 << 20;
        while size > 0 {
            if file.write_all(&vec![7; size]).is_err() {
                size /= 2;
            }
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: `bash tests/run` runs it"]
async fn a_full_disk_refuses_everything_but_a_rollback_and_loses_no_request() {
    let mut installation = Installation::empty();
    let disk = match SmallDisk::mount(&installation.data(), 64) {
        Ok(disk) => disk,
        Err(why) => {
            println!("SKIPPED a_full_disk_refuses_everything_but_a_rollback: {why}");
            assert!(std::env::var_os("CI").is_none(), "no test is skipped in CI");
            return;
        }
    };
    installation.up();
    let users = installation.serving("");
    installation.release("1.1.0", &[]);
    installation.new_stack("1.1.0");
    installation.ok(&["traffic", "api", "1.1.0", "100"]);
    eventually("1.1.0 serves", || installation.deployment()["weights_applied"] == true);

    let load = Load::start(&users, 100);
    let ballast = disk.fill();
    // What the log has set aside for its next commits is used up first.
    let padding = vec![format!("\"{}\"", "x".repeat(400)); 60].join(", ");
    let refused = (0..500).find_map(|n| {
        let toml = format!("name = \"api\"\nowner = \"team {n}\"\n[run]\nargs = [{padding}]\n");
        let said = installation.run(&["apply", &installation.file("padded.toml", &toml)]);
        (said.code != 0).then_some(said)
    });
    let refused = refused.expect("the disk is full");
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("disk is full"), "{refused:?}");

    installation.ok(&["rollback", "api"]);
    let before = load.seen.of("1.0.0");
    load.answers(100).await;
    assert!(load.seen.of("1.0.0") >= before + 90, "{:?}", load.seen.answers);
    load.stop().await.assert_none_lost();

    fs::remove_file(ballast).unwrap();
    eventually("commands are taken again", || {
        let both = ["traffic", "api", "1.0.0", "50", "1.1.0", "50", "--again", "--reason", "there is room again"];
        installation.run(&both).code == 0
    });
    installation.ok(&["verify"]);
    installation.take_down();
    drop(disk);
}

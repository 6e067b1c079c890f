//! The mounts of this process, and the kinds of their file systems.

use std::fs;
use std::path::{Path, PathBuf};

/// A mount that this process sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    id: u64,
    parent: u64,
    pub(super) point: PathBuf,
    /// The kind of the file system, such as `ext4`.
    kind: String,
}

/// Returns the mounts of this process. There are none where they cannot be listed.
pub(super) fn mounts() -> Vec<Mount> {
    #[cfg(test)]
    if let Some(table) = tests::TABLE.with_borrow(Clone::clone) {
        return parse(table.as_bytes());
    }
    if cfg!(target_os = "linux") {
        parse(&fs::read("/proc/self/mountinfo").unwrap_or_default())
    } else {
        Vec::new()
    }
}

fn parse(table: &[u8]) -> Vec<Mount> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(read)
        .collect()
}

/// Reads a line: ids of the mount and its parent, device, root, point, options, optional fields, `-`, kind.
fn read(line: &[u8]) -> Option<Mount> {
    let number = |word: &[u8]| std::str::from_utf8(word).ok()?.parse().ok();
    let mut words = line.split(|byte| *byte == b' ');
    let (id, parent) = (number(words.next()?)?, number(words.next()?)?);
    let point = path(unescaped(words.nth(2)?));
    words.find(|word| *word == b"-")?;
    let kind = String::from_utf8_lossy(words.next()?).into_owned();
    Some(Mount {
        id,
        parent,
        point,
        kind,
    })
}

#[cfg(unix)]
fn path(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;

    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(not(unix))]
fn path(bytes: Vec<u8>) -> PathBuf {
    String::from_utf8_lossy(&bytes).into_owned().into()
}

/// Replaces `\040` and the like, which are a space, a tab, a line feed and a backslash.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\');
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        let escaped = code.and_then(|code| u8::from_str_radix(code, 8).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = match escaped {
            Some(_) => after.get(3..).unwrap_or_default(),
            None => after,
        };
    }
    bytes
}

/// Returns the kind of the file system that has the file at a canonical path.
///
/// A mount can hide others below its point, so the search goes from a mount to those that were mounted on it, as the
/// kernel does.
pub(super) fn kind_of<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a str> {
    let above: Vec<&Mount> = mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.point))
        .collect();
    let is_first = |mount: &Mount| {
        mount.parent == mount.id || mounts.iter().all(|other| other.id != mount.parent)
    };
    let mut found: Option<&Mount> = None;
    for _ in &above {
        let next = above
            .iter()
            .filter(|mount| match found {
                Some(found) => mount.parent == found.id && mount.id != found.id,
                None => is_first(mount),
            })
            .min_by_key(|mount| mount.point.as_os_str().len());
        match next {
            Some(next) => found = Some(next),
            None => break,
        }
    }
    found.map(|mount| mount.kind.as_str())
}

/// Whether other machines can write the files, or the same files have other names elsewhere. SQLite's log needs memory
/// that all programs share, and locks that all of them obey.
pub(super) fn is_shared(kind: &str) -> bool {
    // The root of containers without root, and file systems on a disk.
    const LOCAL: [&str; 2] = ["fuse.fuse-overlayfs", "fuseblk"];
    const SHARED: [&str; 29] = [
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "drvfs",
        "fakeowner",
        "gfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs3",
        "nfs4",
        "ocfs2",
        "orangefs",
        "prl_fs",
        "pvfs2",
        "smb2",
        "smb3",
        "smbfs",
        "vboxsf",
        "virtiofs",
        "vmhgfs",
        "wekafs",
    ];
    SHARED.contains(&kind) || (kind.starts_with("fuse") && !LOCAL.contains(&kind))
}

/// Whether a file keeps its number for as long as it exists, also when the file system is mounted again.
pub(super) fn keeps_numbers(kind: &str) -> bool {
    !is_shared(kind) && !kind.starts_with("fuse") && !["exfat", "msdos", "vfat"].contains(&kind)
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::RefCell;

    use super::*;

    thread_local! {
        /// The table that this thread sees instead of the true one.
        pub(in super::super) static TABLE: RefCell<Option<String>> = const { RefCell::new(None) };
    }

    #[test]
    fn mount_points_are_read_with_their_escapes() {
        for (written, expected) in [
            ("/data/agent.db", "/data/agent.db"),
            ("/my\\040data/a\\134b", "/my data/a\\b"),
            ("/tab\\011", "/tab\t"),
            ("/odd\\0", "/odd\\0"),
            ("\\040", " "),
            ("", ""),
        ] {
            assert_eq!(
                unescaped(written.as_bytes()),
                expected.as_bytes(),
                "{written}"
            );
        }
    }

    #[test]
    fn the_file_system_of_a_path_is_found_as_the_kernel_finds_it() {
        // The root was mounted after `/dev`. `/data` hides an older mount below it, and was then hidden itself.
        let table = parse(
            b"24 27 0:6 / /dev rw,relatime - devtmpfs devtmpfs rw\n\
              27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
              30 27 0:40 / /data/deep rw shared:7 master:1 - nfs4 host:/export rw\n\
              31 27 8:1 / /data rw - xfs /dev/sda1 rw\n\
              32 31 0:41 / /data/my\\040share rw - fuse.sshfs me@host: rw\n\
              33 31 0:42 / /data/auto rw - autofs systemd-1 rw\n\
              34 33 0:43 / /data/auto rw - cifs //host/share rw\n\
              broken line\n",
        );
        for (path, kind) in [
            ("/var/lib/agent.db", "ext4"),
            ("/dev/shm/agent.db", "devtmpfs"),
            ("/data/agent.db", "xfs"),
            ("/data/deep/agent.db", "xfs"),
            ("/data/my share/agent.db", "fuse.sshfs"),
            ("/data/my shared/agent.db", "xfs"),
            ("/data/auto/agent.db", "cifs"),
            ("/database/agent.db", "ext4"),
        ] {
            assert_eq!(kind_of(&table, Path::new(path)), Some(kind), "{path}");
        }
        assert_eq!(kind_of(&[], Path::new("/a")), None);
        // A process in a directory of its own does not see the mount of its root.
        let below = parse(b"40 39 0:5 / /proc rw - proc proc rw\n");
        assert_eq!(kind_of(&below, Path::new("/agent.db")), None);
        assert_eq!(kind_of(&below, Path::new("/proc/a")), Some("proc"));
    }

    #[test]
    fn file_systems_that_machines_share_are_known() {
        for kind in [
            "nfs",
            "nfs4",
            "cifs",
            "smb3",
            "9p",
            "virtiofs",
            "ceph",
            "lustre",
            "vboxsf",
            "fuse",
            "fuse.sshfs",
            "fuse.glusterfs",
            "fuse.s3fs",
            "fuse.gcsfuse",
            "fuse.grpcfuse",
        ] {
            assert!(is_shared(kind) && !keeps_numbers(kind), "{kind}");
        }
        for kind in [
            "ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "f2fs", "bcachefs",
        ] {
            assert!(!is_shared(kind) && keeps_numbers(kind), "{kind}");
        }
        for kind in ["fuse.fuse-overlayfs", "fuseblk", "vfat", "exfat"] {
            assert!(!is_shared(kind) && !keeps_numbers(kind), "{kind}");
        }
    }
}

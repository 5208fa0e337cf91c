//! Which mounted file system a path or a descriptor of a process is on. Asks the kernel's tables only, never the file system,
//! which may hang.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use procfs::process::{MountInfo, MountInfos, Process};

/// The mount that a path is on, if no link leads elsewhere.
pub(crate) fn of_path(mounts: MountInfos, path: &Path) -> Option<MountInfo> {
    let above = mounts.into_iter().map(with_plain_name).filter(|mount| path.starts_with(&mount.mount_point));
    // Of two at the same place the later one is on top.
    above.max_by_key(|mount| mount.mount_point.components().count())
}

/// The mount of a descriptor. `Some(None)` if it is not in the namespace of the process, because it has been unmounted.
pub(crate) fn of_descriptor(process: &Process, descriptor: i32) -> Option<Option<MountInfo>> {
    let text = std::fs::read_to_string(format!("/proc/{}/fdinfo/{descriptor}", process.pid())).ok()?;
    let id: i32 = text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()?;
    let mut mounts = process.mountinfo().ok()?.into_iter();
    Some(mounts.find(|mount| mount.mnt_id == id).map(with_plain_name))
}

/// The kernel writes a space as `\040`, and so on.
fn with_plain_name(mount: MountInfo) -> MountInfo {
    let mut name = Vec::new();
    let mut rest = mount.mount_point.as_os_str().as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| first == b'\\').and_then(|digits| str::from_utf8(digits).ok());
        let byte = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        name.push(byte.unwrap_or(first));
        rest = byte.map_or(after, |_| &after[3..]);
    }
    MountInfo { mount_point: PathBuf::from(OsString::from_vec(name)), ..mount }
}

#[cfg(test)]
mod tests {
    use procfs::FromRead as _;

    use super::*;

    #[test]
    fn the_mount_that_covers_the_others_is_found_under_its_plain_name() {
        let table = "27 1 254:0 / / rw - ext4 /dev/vda rw\n\
                     28 27 254:1 / /var rw - ext4 /dev/vdb rw\n\
                     29 28 254:2 / /var/lib/news\\040wire\\134 rw - xfs /dev/vdc rw\n\
                     30 28 254:3 / /var rw - btrfs /dev/vdd rw\n";
        let of = |path: &str| {
            let found = of_path(MountInfos::from_read(table.as_bytes()).unwrap(), Path::new(path)).unwrap();
            (found.mount_source.unwrap(), found.mount_point.display().to_string())
        };
        let expected = |source: &str, place: &str| (source.to_owned(), place.to_owned());
        assert_eq!(of("/var/x"), expected("/dev/vdd", "/var"));
        assert_eq!(of("/variable"), expected("/dev/vda", "/"));
        assert_eq!(of("/var/lib/news wire\\/journal"), expected("/dev/vdc", "/var/lib/news wire\\"));
    }
}

//! hostPath volumes.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

/// Checks (or makes) what a hostPath volume names, by its type. The text of an error is what upstream's says.
pub fn check(path: &Path, kind: &str) -> Result<(), String> {
    let metadata = fs::metadata(path);
    let text = path.display();
    let fail = |what: &str| Err(format!("hostPath type check failed: {text} is not a {what}"));
    let make = |mode: u32, directory: bool| -> Result<(), String> {
        let made = if directory { fs::create_dir_all(path) } else { fs::File::create(path).map(drop) };
        made.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
            .map_err(|error| format!("cannot create {text}: {error}"))
    };
    match (kind, &metadata) {
        ("DirectoryOrCreate", Err(_)) => make(0o755, true),
        ("FileOrCreate", Err(_)) => make(0o644, false),
        // Without a type there is no check; the runtime makes a folder of what is missing.
        ("", Err(_)) => make(0o755, true),
        ("", Ok(_)) => Ok(()),
        ("Directory" | "DirectoryOrCreate", found) => match found {
            Ok(found) if found.is_dir() => Ok(()),
            _ => fail("directory"),
        },
        ("File" | "FileOrCreate", Ok(found)) if found.is_file() => Ok(()),
        ("File" | "FileOrCreate", _) => fail("file"),
        ("Socket", Ok(found)) if found.file_type().is_socket() => Ok(()),
        ("Socket", _) => fail("socket file"),
        ("CharDevice", Ok(found)) if found.file_type().is_char_device() => Ok(()),
        ("CharDevice", _) => fail("character device"),
        ("BlockDevice", Ok(found)) if found.file_type().is_block_device() => Ok(()),
        ("BlockDevice", _) => fail("block device"),
        (other, _) => Err(format!("unknown hostPath type {other:?}")),
    }
}

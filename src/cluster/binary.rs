//! This very program as an image layer: its identity, and the part of it that a node needs.

use std::io::Read;
use std::path::PathBuf;

use super::node_image::{ImageError, short_hash};

/// This very program, also after its file was replaced.
const SELF: &str = "/proc/self/exe";
/// Headers and notes stand at the beginning of an executable.
const HEAD: u64 = 64 * 1024;

fn unreadable(source: std::io::Error) -> ImageError {
    ImageError::Binary { path: PathBuf::from(SELF), source }
}

/// The whole program.
pub(super) async fn read() -> Result<Vec<u8>, ImageError> {
    tokio::fs::read(SELF).await.map_err(unreadable)
}

/// The part of an executable that the kernel loads, which stands first in the file; symbols and debug information behind
/// it are two thirds of a development build, and a node has no debugger. Anything unusual is left whole.
pub(super) fn loaded_part(mut elf: Vec<u8>) -> Vec<u8> {
    const SECTIONS_AT: std::ops::Range<usize> = 40..48;
    const SECTION_COUNT_AND_NAMES: std::ops::Range<usize> = 60..64;
    let Some(headers) = program_headers(&elf) else { return elf };
    let end =
        headers.filter(|header| header.kind == PT_LOAD).map(|header| header.start + header.length).max();
    if let Some(end) = end.filter(|end| (1..elf.len()).contains(end)) {
        elf.truncate(end);
        for field in [SECTIONS_AT, SECTION_COUNT_AND_NAMES] {
            if let Some(field) = elf.get_mut(field) {
                field.fill(0);
            }
        }
    }
    elf
}

/// Twelve hexadecimal digits that differ whenever the program differs: of the build id that the linker wrote, which is
/// a hash of the content and costs nothing to read; where there is none, of the content itself.
pub(super) async fn identity() -> Result<String, ImageError> {
    let mut head = Vec::new();
    let file = std::fs::File::open(SELF).map_err(unreadable)?;
    file.take(HEAD).read_to_end(&mut head).map_err(unreadable)?;
    match build_id(&head) {
        Some(id) => Ok(hex::encode(id).chars().take(12).collect()),
        None => Ok(short_hash(&[&read().await?])),
    }
}

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;

/// A part of an executable, as its program header describes it: offsets in the file.
struct Segment {
    kind: u32,
    start: usize,
    length: usize,
}

/// The program headers of a 64-bit little-endian ELF file.
fn program_headers(elf: &[u8]) -> Option<impl Iterator<Item = Segment>> {
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = usize::try_from(u64_at(elf, 32)?).ok()?;
    let (size, count) = (usize::from(u16_at(elf, 54)?), usize::from(u16_at(elf, 56)?));
    Some((0..count).filter_map(move |index| {
        let header = elf.get(table.checked_add(index * size)?..)?;
        let start = usize::try_from(u64_at(header, 8)?).ok()?;
        let length = usize::try_from(u64_at(header, 32)?).ok()?;
        start.checked_add(length)?;
        Some(Segment { kind: u32_at(header, 0)?, start, length })
    }))
}

/// The build id, from the beginning of an ELF file.
fn build_id(elf: &[u8]) -> Option<&[u8]> {
    program_headers(elf)?
        .filter(|header| header.kind == PT_NOTE)
        .find_map(|header| build_id_note(elf.get(header.start..header.start + header.length)?))
}

/// Notes stand one after the other: three words (length of the name, length of the content, type), name, content; both
/// padded to four bytes.
fn build_id_note(mut notes: &[u8]) -> Option<&[u8]> {
    const NT_GNU_BUILD_ID: u32 = 3;
    loop {
        let name_size = usize::try_from(u32_at(notes, 0)?).ok()?;
        let size = usize::try_from(u32_at(notes, 4)?).ok()?;
        let kind = u32_at(notes, 8)?;
        let content = 12 + name_size.next_multiple_of(4);
        let found = notes.get(content..content.checked_add(size)?)?;
        if kind == NT_GNU_BUILD_ID && notes.get(12..12 + name_size)? == b"GNU\0" && size >= 8 {
            return Some(found);
        }
        notes = notes.get(content + size.next_multiple_of(4)..)?;
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &[u8], content: &[u8], kind: u32) -> Vec<u8> {
        let mut note = Vec::new();
        for word in
            [u32::try_from(name.len()).expect("short"), u32::try_from(content.len()).expect("short"), kind]
        {
            note.extend(word.to_le_bytes());
        }
        for part in [name, content] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    #[test]
    fn the_build_id_is_found_behind_other_notes() {
        let id = [7u8; 20];
        let notes =
            [note(b"GNU\0", &[1; 16], 1), note(b"XYZ12\0", &[2; 5], 3), note(b"GNU\0", &id, 3)].concat();
        assert_eq!(build_id_note(&notes), Some(id.as_slice()));
        assert_eq!(build_id_note(&notes[..notes.len() - 1]), None);
        assert_eq!(build_id_note(&note(b"GNU\0", &id, 1)), None);
    }

    #[test]
    fn what_is_no_program_has_none() {
        for bytes in [&b""[..], b"#!/bin/sh", b"\x7fELF\x02\x01", &[0xff; 100]] {
            assert_eq!(build_id(bytes), None);
        }
    }

    #[tokio::test]
    async fn without_symbols_a_program_still_runs() {
        use std::os::unix::fs::PermissionsExt;

        let whole = read().await.expect("readable");
        let part = loaded_part(whole.clone());
        assert!(part.len() < whole.len(), "a test binary has symbols");
        assert_eq!(build_id(&part), build_id(&whole));
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("program");
        std::fs::write(&path, part).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("changed");
        let pipe = sys::Pipe::start(&path.display().to_string(), &["--list"], &[]).expect("it starts");
        let output: Vec<bytes::Bytes> = futures::TryStreamExt::try_collect(pipe).await.expect("it runs");
        assert!(String::from_utf8_lossy(&output.concat()).contains("this_program_has_an_identity"));
        assert_eq!(loaded_part(b"#!/bin/sh".to_vec()), b"#!/bin/sh");
    }

    #[tokio::test]
    async fn this_program_has_an_identity() {
        let id = identity().await.expect("readable");
        assert!(id.len() == 12 && id.chars().all(|c| c.is_ascii_hexdigit()), "{id}");
    }
}

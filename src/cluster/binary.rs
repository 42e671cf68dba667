use std::io::Read;
use std::path::PathBuf;

use bytes::Bytes;

use super::node_image::{ImageError, short_hash};

/// This very program, also after its file was replaced.
const SELF: &str = "/proc/self/exe";
/// Headers and notes stand at the beginning of an executable.
const HEAD: u64 = 64 * 1024;

fn unreadable(source: std::io::Error) -> ImageError {
    ImageError::Binary { path: PathBuf::from(SELF), source }
}

/// The whole program.
pub(super) async fn read() -> Result<Bytes, ImageError> {
    tokio::fs::read(SELF).await.map(Bytes::from).map_err(unreadable)
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

/// The note with the build id in the beginning of a 64-bit little-endian ELF file.
fn build_id(elf: &[u8]) -> Option<&[u8]> {
    const PT_NOTE: u32 = 4;
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = usize::try_from(u64_at(elf, 32)?).ok()?;
    let (size, count) = (usize::from(u16_at(elf, 54)?), usize::from(u16_at(elf, 56)?));
    (0..count).find_map(|index| {
        let header = elf.get(table.checked_add(index * size)?..)?;
        if u32_at(header, 0)? != PT_NOTE {
            return None;
        }
        let (start, length) =
            (usize::try_from(u64_at(header, 8)?).ok()?, usize::try_from(u64_at(header, 32)?).ok()?);
        build_id_note(elf.get(start..start.checked_add(length)?)?)
    })
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
    async fn this_program_has_an_identity() {
        let id = identity().await.expect("readable");
        assert!(id.len() == 12 && id.chars().all(|c| c.is_ascii_hexdigit()), "{id}");
    }
}

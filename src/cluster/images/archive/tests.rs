//! Tests of reading image archives.

use super::*;

fn tar_of(files: &[(&str, &[u8])], links: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        append(&mut tar, path, content.len() as u64, &mut &content[..]).expect("in memory");
    }
    for (path, target) in links {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, path, target).expect("in memory");
    }
    tar.into_inner().expect("in memory")
}

fn with<'a>(index: &'a Index, asked: Option<(&'a str, &'a str)>) -> Intake<'a> {
    Intake { id: "id", time: 7, index, asked, architecture: "amd64" }
}

/// The files of the store's archive: name and content.
fn written(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().expect("entries");
    entries
        .map(|entry| {
            let mut entry = entry.expect("readable");
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("readable");
            (entry.path().expect("path").display().to_string(), content)
        })
        .collect()
}

const LIST: &[u8] =
    br#"[{"Config":"c.json","RepoTags":["app:1"],"Layers":["one/layer.tar","two/layer.tar","three/layer.tar"]}]"#;

fn docker_archive() -> Vec<u8> {
    tar_of(
        &[
            ("one/layer.tar", b"first"),
            ("two/layer.tar", b"\x1f\x8bzipped"),
            ("c.json", b"{}"),
            ("manifest.json", LIST),
        ],
        &[("three/layer.tar", "../one/layer.tar")],
    )
}

#[test]
fn docker_s_form_gets_a_manifest() {
    let mut out = Vec::new();
    let index = Index::default();
    let load = intake(docker_archive().as_slice(), &mut out, &with(&index, None)).expect("taken");
    let [image] = load.images.as_slice() else { panic!("{load:?}") };
    assert_eq!(image.names, ["docker.io/library/app:1"]);
    assert_eq!(image.source.as_deref(), Some(Hasher::of(b"{}").as_str()));
    let files = written(&out);
    assert_eq!(*files.keys().last().expect("some"), "loads/id.json", "the load's own file comes last");
    assert_eq!(serde_json::from_slice::<Load>(&files["loads/id.json"]).expect("readable"), load);
    for blob in &load.blobs {
        assert_eq!(Hasher::of(&files[&format!("blobs/{}", blob.file)]), blob.digest);
    }
    let manifest = load.blobs.iter().find(|blob| blob.digest == image.digest).expect("stored");
    let manifest: Manifest =
        serde_json::from_slice(&files[&format!("blobs/{}", manifest.file)]).expect("readable");
    let layers: Vec<_> =
        manifest.layers.iter().map(|l| (l.digest.clone(), l.media_type.contains("gzip"))).collect();
    let (first, second) = (Hasher::of(b"first"), Hasher::of(b"\x1f\x8bzipped"));
    assert_eq!(layers, [(first.clone(), false), (second, true), (first, false)]);
    assert!(Index::new(vec![load.clone()]).is_complete(image));
}

fn oci_archive(damaged: bool) -> Vec<u8> {
    let config = br#"{"architecture":"amd64"}"#;
    let layer = b"layer";
    let d = |content: &[u8]| Hasher::of(content);
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "config": {"mediaType": "c", "digest": d(config), "size": config.len()},
        "layers": [{"mediaType": "l", "digest": d(layer), "size": layer.len()}],
    })
    .to_string();
    let platforms = serde_json::json!({"manifests": [
        {"mediaType": "m", "digest": d(b"other"), "size": 5, "platform": {"os": "linux", "architecture": "arm64"}},
        {"mediaType": OCI_MANIFEST, "digest": d(manifest.as_bytes()), "size": manifest.len(), "platform": {"os": "linux", "architecture": "amd64"}},
    ]})
    .to_string();
    let index = serde_json::json!({"manifests": [{
        "mediaType": "i", "digest": d(platforms.as_bytes()), "size": platforms.len(),
        "annotations": {"io.containerd.image.name": "docker.io/library/app:2"},
    }]})
    .to_string();
    let path = |content: &[u8]| d(content).replacen("sha256:", "blobs/sha256/", 1);
    let paths = [path(config), path(layer), path(manifest.as_bytes()), path(platforms.as_bytes())];
    let stored: &[u8] = if damaged { b"lAyer" } else { layer };
    tar_of(
        &[
            (&paths[0], config),
            (&paths[1], stored),
            (&paths[2], manifest.as_bytes()),
            (&paths[3], platforms.as_bytes()),
            ("index.json", index.as_bytes()),
            ("oci-layout", b"{}"),
        ],
        &[],
    )
}

#[test]
fn the_oci_layout_keeps_its_digests() {
    let mut out = Vec::new();
    let index = Index::default();
    let load = intake(oci_archive(false).as_slice(), &mut out, &with(&index, Some(("me/app", "sha256:id"))))
        .expect("taken");
    let [image] = load.images.as_slice() else { panic!("{load:?}") };
    assert_eq!(image.names, ["docker.io/library/app:2", "docker.io/me/app:latest"]);
    assert_eq!((image.media_type.as_str(), image.source.as_deref()), (OCI_MANIFEST, Some("sha256:id")));
    assert!(Index::new(vec![load.clone()]).is_complete(image));
}

#[test]
fn what_is_damaged_or_cut_short_is_refused() {
    let index = Index::default();
    let check = |bytes: &[u8], part: &str| {
        let mut out = Vec::new();
        let said = intake(bytes, &mut out, &with(&index, None)).expect_err("refused").to_string();
        assert!(said.contains(part), "{said}");
        assert!(!String::from_utf8_lossy(&out).contains("loads/"), "nothing is announced");
    };
    check(&oci_archive(true), "should have the digest");
    check(b"no archive", "cannot be read");
    check(&[], "not an archive with an image");
    check(&tar_of(&[("readme", b"hello")], &[]), "not an archive with an image");
    check(&tar_of(&[("manifest.json", LIST), ("c.json", b"{}")], &[]), "one/layer.tar is missing");
    check(&tar_of(&[("manifest.json", b"[{}]")], &[]), "malformed");
    let whole = tar_of(&[("one/layer.tar", &[7; 100_000])], &[]);
    check(&whole[..50_000], "cannot be read");
}

#[test]
fn large_layers_that_are_there_are_not_stored_again() {
    let large = vec![3u8; usize::try_from(SMALL).expect("small") + 1];
    let list = br#"[{"Config":"c.json","RepoTags":["app:1"],"Layers":["one/layer.tar"]}]"#;
    let tar = tar_of(&[("one/layer.tar", &large), ("c.json", b"{}"), ("manifest.json", list)], &[]);
    let empty = Index::default();
    let mut out = Vec::new();
    let first = intake(tar.as_slice(), &mut out, &with(&empty, None)).expect("taken");
    let index = Index::new(vec![first.clone()]);
    let mut out = Vec::new();
    let second = intake(tar.as_slice(), &mut out, &with(&index, None)).expect("taken");
    assert_eq!(second.images, first.images);
    assert!(out.len() < 100_000, "{}", out.len());
}

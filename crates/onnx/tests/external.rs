//! External data: only regular files below the model's own folder, and never written elsewhere.
#![allow(missing_docs)]

mod common;

use std::fs;
use std::path::Path;

use common::*;
use netproof_onnx::proto::attribute_proto::AttributeType;
use netproof_onnx::proto::tensor_proto::{DataLocation, DataType};
use netproof_onnx::proto::*;
use netproof_onnx::{Limits, OnnxError, OnnxFile, SaveOptions, tensor_from_proto};
use prost::Message as _;

fn external(entries: &[(&str, &str)]) -> TensorProto {
    let entry = |&(k, v): &(&str, &str)| StringStringEntryProto { key: some(k), value: some(v) };
    TensorProto {
        data_location: Some(DataLocation::External as i32),
        external_data: entries.iter().map(entry).collect(),
        ..tensor("w", DataType::Float, &[2])
    }
}

fn model_of(weight: TensorProto) -> ModelProto {
    let mut model = plain();
    model.graph.as_mut().unwrap().initializer = vec![weight];
    model
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn load_in(folder: &Path, entries: &[(&str, &str)]) -> Result<Vec<f32>, OnnxError> {
    let path = folder.join("model.onnx");
    fs::write(&path, model_of(external(entries)).encode_to_vec()).unwrap();
    let file = OnnxFile::load(&path, &Limits::default())?;
    Ok(tensor_from_proto(file.initializer("w").unwrap())?.into_f32().unwrap())
}

/// A folder `outer/model` with `outer/secret` beside it.
fn folders() -> (tempfile::TempDir, std::path::PathBuf) {
    let outer = tempfile::tempdir().unwrap();
    fs::write(outer.path().join("secret"), bytes_of(&[66.0, 66.0])).unwrap();
    let folder = outer.path().join("model");
    fs::create_dir_all(folder.join("sub")).unwrap();
    fs::write(folder.join("w.bin"), bytes_of(&[1.0, 2.0, 3.0, 4.0])).unwrap();
    fs::write(folder.join("sub/w.bin"), bytes_of(&[5.0, 6.0])).unwrap();
    (outer, folder)
}

#[test]
fn ranges_of_files_beside_the_model_are_read() {
    let (_outer, folder) = folders();
    let read = |entries: &[(&str, &str)]| load_in(&folder, entries).unwrap();
    assert_eq!(read(&[("location", "w.bin"), ("offset", "8"), ("length", "8")]), [3.0, 4.0]);
    assert_eq!(read(&[("location", "./sub/w.bin")]), [5.0, 6.0]);
    assert_eq!(read(&[("location", "w.bin"), ("offset", "8")]), [3.0, 4.0]);
    // Keys that runtimes add, and the checksum, change nothing.
    let extra = [
        ("location", "w.bin"),
        ("length", "8"),
        ("prepacked_0", "x"),
        ("checksum", "0"),
        ("__class__", "y"),
        ("basepath", ""),
    ];
    assert_eq!(read(&extra), [1.0, 2.0]);
}

#[test]
fn data_of_attributes_branches_and_functions_are_brought_in() {
    let (_outer, folder) = folders();
    let mut constant = node("const", "Constant", &[], &["c"]);
    let weight = external(&[("location", "w.bin"), ("length", "8")]);
    constant.attribute =
        vec![AttributeProto { t: Some(Box::new(weight)), ..attribute("value", AttributeType::Tensor) }];
    let mut choose = node("choose", "If", &["x"], &["y"]);
    choose.attribute = vec![branch("then_branch", subgraph(vec![constant.clone()], "c"))];
    let mut model = rich();
    model.graph.as_mut().unwrap().node = vec![choose];
    model.functions[0].node.insert(0, constant);
    let file = OnnxFile::from_bytes(&model.encode_to_vec(), Some(&folder), &Limits::default()).unwrap();
    let branch = file.model.graph.as_ref().unwrap().node[0].attribute[0].g.as_ref().unwrap();
    for node in [&branch.node[0], &file.model.functions[0].node[0]] {
        let tensor = node.attribute[0].t.as_ref().unwrap();
        assert_eq!(tensor_from_proto(tensor).unwrap().as_f32().unwrap(), [1.0, 2.0]);
    }
    let text = OnnxFile::from_bytes(&model.encode_to_vec(), None, &Limits::default()).unwrap_err().to_string();
    assert!(
        text.starts_with("node \"const\" (Constant), attribute \"value\": external data \"w.bin\": there is no folder"),
        "{text}"
    );
}

#[test]
fn paths_that_leave_the_folder_are_refused() {
    let (outer, folder) = folders();
    let absolute = outer.path().join("secret").to_str().unwrap().to_owned();
    for location in [
        "../secret",
        "sub/../../secret",
        "sub/..",
        "..",
        "a/../../x",
        "sub/../w.bin",
        &absolute,
        "/etc/passwd",
        "C:\\secret",
        "C:secret",
        "\\\\host\\share",
        "sub\\w.bin",
        "w.bin\0",
        "\0",
        "",
        ".",
        "./",
        "sub//w.bin",
        "w.bin/",
        "w.bin:stream",
    ] {
        let error = load_in(&folder, &[("location", location)]).unwrap_err();
        assert!(matches!(&error, OnnxError::External { at, .. } if at == "tensor \"w\""), "{location:?}: {error}");
        assert!(error.to_string().contains("path"), "{location:?}: {error}");
    }
    let error = load_in(&folder, &[("length", "8")]).unwrap_err();
    assert!(matches!(error, OnnxError::Missing { what: "location of external data", .. }));
    let error = load_in(&folder, &[("location", "w.bin"), ("basepath", "..")]).unwrap_err();
    assert!(error.to_string().contains("base path"), "{error}");
    let error = load_in(&folder, &[("location", "w.bin"), ("location", "sub/w.bin")]).unwrap_err();
    assert!(error.to_string().contains("\"location\" appears twice"), "{error}");
}

#[test]
fn ranges_outside_the_file_are_refused() {
    let (_outer, folder) = folders();
    let max = u64::MAX.to_string();
    for (offset, length) in [("16", "8"), ("9", "8"), ("17", "8"), (max.as_str(), "8")] {
        let error = load_in(&folder, &[("location", "w.bin"), ("offset", offset), ("length", length)]).unwrap_err();
        assert!(matches!(error, OnnxError::ExternalRange { size: 16, .. }), "{offset} {length}: {error}");
    }
    assert!(matches!(
        load_in(&folder, &[("location", "w.bin"), ("offset", "99")]),
        Err(OnnxError::ExternalRange { .. })
    ));
    for length in ["0", "4", "16", max.as_str()] {
        let error = load_in(&folder, &[("location", "w.bin"), ("length", length)]).unwrap_err();
        assert!(matches!(error, OnnxError::DataSize { field: "external_data", expected: 8, .. }), "{length}: {error}");
    }
    for number in ["-1", "+8", " 8", "8 ", "0x8", "", "1e3", "99999999999999999999", "١"] {
        for key in ["offset", "length"] {
            let error = load_in(&folder, &[("location", "w.bin"), (key, number)]).unwrap_err();
            assert!(error.to_string().contains("is not a number of bytes"), "{key} {number:?}: {error}");
        }
    }
}

#[test]
fn data_inside_and_outside_and_external_text_are_refused() {
    let (_outer, folder) = folders();
    let load = |weight: TensorProto| {
        OnnxFile::from_bytes(&model_of(weight).encode_to_vec(), Some(&folder), &Limits::default())
            .unwrap_err()
            .to_string()
    };
    let both = TensorProto { raw_data: Some(vec![0; 8].into()), ..external(&[("location", "w.bin")]) };
    assert!(load(both).contains("raw_data and external data"));
    let text = TensorProto { data_type: Some(DataType::String as i32), ..external(&[("location", "w.bin")]) };
    assert!(load(text).contains("text cannot be external"));
    let huge = TensorProto { dims: vec![1 << 30], ..external(&[("location", "w.bin")]) };
    assert!(load(huge).contains("needs 4294967296 bytes in external_data, found 16"));
}

#[test]
fn shared_ranges_count_once_and_the_total_is_limited() {
    let (_outer, folder) = folders();
    let mut model = plain();
    let weight =
        |i: usize| TensorProto { name: some(&format!("w{i}")), ..external(&[("location", "w.bin"), ("length", "8")]) };
    model.graph.as_mut().unwrap().initializer = (0..1000).map(weight).collect();
    let bytes = model.encode_to_vec();
    let limits = |external_bytes| Limits { external_bytes, ..Limits::default() };
    let file = OnnxFile::from_bytes(&bytes, Some(&folder), &limits(8)).unwrap();
    let raw = |name| file.initializer(name).unwrap().raw_data.as_ref().unwrap().as_ptr();
    assert_eq!(raw("w0"), raw("w999"));
    let error = OnnxFile::from_bytes(&bytes, Some(&folder), &limits(7)).unwrap_err();
    assert!(matches!(error, OnnxError::TooLarge { what: "size of external data", .. }), "{error}");
}

#[cfg(unix)]
#[test]
fn links_and_things_that_are_not_files_are_refused() {
    use std::os::unix::fs::symlink;
    let (outer, folder) = folders();
    symlink(outer.path().join("secret"), folder.join("link.bin")).unwrap();
    symlink(folder.join("w.bin"), folder.join("inner-link.bin")).unwrap();
    symlink(outer.path(), folder.join("out")).unwrap();
    symlink(folder.join("sub"), folder.join("inner")).unwrap();
    for location in ["link.bin", "inner-link.bin", "out/secret", "inner/w.bin"] {
        let text = load_in(&folder, &[("location", location)]).unwrap_err().to_string();
        assert!(text.contains("symbolic link"), "{location}: {text}");
    }
    fs::hard_link(outer.path().join("secret"), folder.join("hard.bin")).unwrap();
    let text = load_in(&folder, &[("location", "hard.bin")]).unwrap_err().to_string();
    assert!(text.contains("more than one hard link"), "{text}");
    let _socket = std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap();
    for location in ["sub", "socket", "missing.bin", "w.bin/x"] {
        let error = load_in(&folder, &[("location", location)]).unwrap_err();
        assert!(matches!(error, OnnxError::External { .. }), "{location}: {error}");
    }
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        mknodat(CWD, folder.join("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let text = load_in(&folder, &[("location", "pipe")]).unwrap_err().to_string();
        assert!(text.contains("is not a regular file"), "{text}");
    }
}

/// Whoever can write to the folder swaps the file for a link while the model is loaded: what comes back is the file or
/// an error, never the secret.
#[cfg(unix)]
#[test]
fn a_swap_during_loading_never_leaks() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let (outer, folder) = folders();
    let model = model_of(external(&[("location", "d/w.bin"), ("length", "8")])).encode_to_vec();
    let (real, link) = (folder.join("real"), folder.join("link"));
    fs::create_dir(&real).unwrap();
    fs::write(real.join("w.bin"), bytes_of(&[1.0, 2.0])).unwrap();
    fs::create_dir(outer.path().join("elsewhere")).unwrap();
    fs::copy(outer.path().join("secret"), outer.path().join("elsewhere/w.bin")).unwrap();
    std::os::unix::fs::symlink(outer.path().join("elsewhere"), &link).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let target = folder.join("d");
            while !stop.load(Ordering::Relaxed) {
                for source in [&real, &link] {
                    let _ = fs::rename(source, &target);
                    std::thread::yield_now();
                    let _ = fs::rename(&target, source);
                }
            }
        });
        let leaked = (0..3000).any(|_| {
            let file = OnnxFile::from_bytes(&model, Some(&folder), &Limits::default());
            file.is_ok_and(|file| {
                file.initializer("w").unwrap().raw_data.as_deref() != Some(&bytes_of(&[1.0, 2.0])[..])
            })
        });
        stop.store(true, Ordering::Relaxed);
        assert!(!leaked);
    });
}

fn large_model() -> ModelProto {
    let mut model = plain();
    let typed = TensorProto { int32_data: (0..1000).collect(), ..tensor("typed", DataType::Int16, &[1000]) };
    let weights = vec![floats("a", &[1.5; 1000]), floats("small", &[2.0]), typed, floats("b", &[-1.0; 2000])];
    model.graph.as_mut().unwrap().initializer = weights;
    model
}

const OUT: SaveOptions = SaveOptions { external_data: true };

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn weights_are_written_beside_the_model_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    let file = OnnxFile::from(large_model());
    file.save(&path, OUT).unwrap();
    assert_eq!(names(folder.path()), ["m.onnx", "m.onnx.data"]);
    assert!(fs::metadata(&path).unwrap().len() < 600);
    let stored = ModelProto::decode(fs::read(&path).unwrap().as_slice()).unwrap();
    let entries = |i: usize| -> Vec<_> {
        stored.graph.as_ref().unwrap().initializer[i]
            .external_data
            .iter()
            .map(|e| format!("{}={}", e.key(), e.value()))
            .collect()
    };
    assert_eq!(entries(0), ["location=m.onnx.data", "offset=0", "length=4000"]);
    assert_eq!(entries(2), ["location=m.onnx.data", "offset=4096", "length=2000"]);
    assert_eq!(entries(3), ["location=m.onnx.data", "offset=8192", "length=8000"]);
    let back = OnnxFile::load(&path, &Limits::default()).unwrap();
    for name in ["a", "small", "typed", "b"] {
        let read = |f: &OnnxFile| tensor_from_proto(f.initializer(name).unwrap()).unwrap();
        assert_eq!(read(&back), read(&file), "{name}");
    }
    // Saved without external data, the model is whole again.
    back.save(&folder.path().join("whole.onnx"), SaveOptions::default()).unwrap();
    let whole =
        OnnxFile::from_bytes(&fs::read(folder.path().join("whole.onnx")).unwrap(), None, &Limits::default()).unwrap();
    assert_eq!(whole.model, back.model);
}

#[test]
fn saving_again_never_touches_the_weights_of_the_old_model_before_the_new_one_is_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    let file = OnnxFile::from(large_model());
    file.save(&path, OUT).unwrap();
    file.save(&path, OUT).unwrap();
    assert_eq!(names(folder.path()), ["m.onnx", "m.onnx.1.data"]);
    OnnxFile::load(&path, &Limits::default()).unwrap();
    file.save(&path, OUT).unwrap();
    assert_eq!(names(folder.path()), ["m.onnx", "m.onnx.data"]);
    // The model's place is taken by a folder: the second step fails, the file of weights of the first stays unused.
    let blocked = folder.path().join("dir.onnx");
    fs::create_dir(&blocked).unwrap();
    assert!(matches!(file.save(&blocked, OUT), Err(OnnxError::Io { action: "write", .. })));
    assert!(names(folder.path()).iter().all(|n| !n.ends_with(".tmp")));
}

#[cfg(unix)]
#[test]
fn saving_replaces_links_and_never_follows_them() {
    use std::os::unix::fs::symlink;
    let (outer, folder) = folders();
    let secret = outer.path().join("secret");
    symlink(&secret, folder.join("m.onnx")).unwrap();
    symlink(&secret, folder.join("m.onnx.data")).unwrap();
    // Links where temporary files could be.
    for number in 0..200 {
        symlink(&secret, folder.join(format!(".m.onnx.{}-{number}.tmp", std::process::id()))).unwrap();
    }
    let file = OnnxFile::from(large_model());
    file.save(&folder.join("m.onnx"), OUT).unwrap();
    assert_eq!(fs::read(&secret).unwrap(), bytes_of(&[66.0, 66.0]));
    assert!(fs::symlink_metadata(folder.join("m.onnx")).unwrap().is_file());
    assert!(fs::symlink_metadata(folder.join("m.onnx.data")).unwrap().is_symlink());
    assert!(fs::symlink_metadata(folder.join("m.onnx.1.data")).unwrap().is_file());
    OnnxFile::load(&folder.join("m.onnx"), &Limits::default()).unwrap();
    for name in ["a:b.onnx", "a\\b.onnx"] {
        assert!(file.save(&folder.join(name), OUT).is_err(), "{name} could not be loaded again");
    }
}

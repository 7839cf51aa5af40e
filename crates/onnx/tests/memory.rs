//! Small files that ask for much memory are refused before it is taken.
#![allow(missing_docs, unsafe_code)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::*;
use netproof_onnx::proto::tensor_proto::DataType;
use netproof_onnx::proto::*;
use netproof_onnx::{Limits, OnnxError, OnnxFile, inline_functions};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};

/// Counts the bytes that the current thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn change(grow: usize, shrink: usize) {
    let _ = HELD.try_with(|held| {
        held.set(held.get().saturating_add(grow).saturating_sub(shrink));
        PEAK.with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call is handed to the system's allocator unchanged; the counters allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        change(layout.size(), 0);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        change(0, layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        change(size, layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Result and peak memory of `work`, beyond what was held before.
fn measured<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = work();
    (result, PEAK.get() - before)
}

/// A model whose graph has `count` fields of that number, each an empty message.
fn many_empty(field: u32, count: usize) -> Vec<u8> {
    let mut one = Vec::new();
    encode_key(field, WireType::LengthDelimited, &mut one);
    one.push(0);
    wrap(7, &one.repeat(count))
}

fn wrap(field: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_key(field, WireType::LengthDelimited, &mut out);
    encode_varint(body.len() as u64, &mut out);
    out.extend(body);
    out
}

const MIB: usize = 1 << 20;

fn refused(bytes: &[u8]) {
    let (result, peak) = measured(|| load_bytes(bytes));
    let error = result.expect_err("refused");
    assert!(matches!(error, OnnxError::TooLarge { .. }), "{error}");
    // One copy of the input, and next to nothing besides.
    assert!(peak < bytes.len() + MIB, "{peak} bytes for a file of {}: {error}", bytes.len());
}

#[test]
fn ten_million_empty_messages() {
    for field in [1, 5, 11, 13, 14, 15, 16] {
        refused(&many_empty(field, 10_000_000));
    }
    // Dimensions of one input.
    let dims = wrap(7, &wrap(11, &wrap(2, &wrap(1, &wrap(2, &[0x0a, 0].repeat(10_000_000))))));
    refused(&dims);
    // Attributes, inputs and metadata of one node.
    for field in [5, 1, 9] {
        let mut one = Vec::new();
        encode_key(field, WireType::LengthDelimited, &mut one);
        one.push(0);
        refused(&wrap(7, &wrap(1, &one.repeat(10_000_000))));
    }
}

#[test]
fn numbers_that_grow_when_decoded() {
    // int64_data of zeros: one byte each in the file, eight in memory.
    let body = [wrap(7, &vec![0; 100 * MIB]), vec![0x10, 7]].concat();
    refused(&wrap(7, &wrap(5, &body)));
    // Unpacked dims: two bytes each.
    refused(&wrap(7, &wrap(5, &[0x08, 1].repeat(40 * MIB))));
}

#[test]
fn the_bound_on_memory_holds_for_what_is_just_allowed() {
    for (field, count) in [(1, 900_000), (5, 500_000)] {
        let bytes = many_empty(field, count);
        let (result, peak) = measured(|| load_bytes(&bytes));
        result.expect_err("empty nodes are not a network");
        assert!(peak < bytes.len() + 700 * MIB, "{} MiB", peak / MIB);
    }
}

#[test]
fn declared_sizes_allocate_nothing() {
    for dims in [vec![1i64 << 31, 1 << 31], vec![1 << 31], vec![i64::MAX, i64::MAX], vec![1 << 32, 0, 1 << 62]] {
        let mut model = plain();
        model.graph.as_mut().unwrap().initializer = vec![tensor("w", DataType::Float, &dims)];
        let bytes = model.encode_to_vec();
        let (result, peak) = measured(|| load_bytes(&bytes));
        assert!(result.is_err() && peak < MIB, "{dims:?}: {peak}");
    }
}

#[test]
fn a_file_over_two_gigabytes_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge.onnx");
    std::fs::File::create(&path).unwrap().set_len((1 << 31) + 1).unwrap();
    let (result, peak) = measured(|| OnnxFile::load(&path, &Limits::default()));
    assert!(matches!(result, Err(OnnxError::TooLarge { value: 2_147_483_649, .. })));
    assert!(peak < MIB, "{peak}");
}

#[test]
fn copies_of_functions_are_bounded() {
    // A megabyte of text in a body that is called 2^30 times.
    let mut leaf = node("n", "Neg", &["p"], &["q"]);
    leaf.doc_string = Some("x".repeat(MIB));
    let function = |name: &str, nodes: Vec<NodeProto>| FunctionProto {
        name: some(name),
        domain: some("own"),
        input: vec!["p".into()],
        output: vec!["q".into()],
        node: nodes,
        opset_import: vec![opset("", 17)],
        ..Default::default()
    };
    let mut functions = vec![function("F0", vec![leaf])];
    for level in 1..30 {
        let call = |name, input, output| NodeProto {
            domain: some("own"),
            ..node(name, &format!("F{}", level - 1), &[input], &[output])
        };
        functions.push(function(&format!("F{level}"), vec![call("a", "p", "t"), call("b", "t", "q")]));
    }
    let start = NodeProto { domain: some("own"), ..node("c", "F29", &["x"], &["y"]) };
    let mut model = ModelProto { functions, ..model(vec![start]) };
    let (result, peak) = measured(|| inline_functions(&mut model));
    assert!(matches!(result, Err(OnnxError::TooLarge { .. })));
    assert!(peak < 700 * MIB, "{} MiB", peak / MIB);
}

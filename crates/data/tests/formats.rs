//! Every format gives the rows that were put in, whoever wrote the file.

mod common;

use common::{Folder, all, fixture, gzip, message, names, open, values};
use netproof_data::{
    ColumnKind, DataError, Dataset, LabelKind, Labels, Limits, OnBadRow, OpenOptions, ParquetColumn, ParquetKind,
    ParquetValues, ParquetWriter, Role, Scale, Task, read_npz, write_npz, write_parquet,
};
use netproof_tensor::{DType, Elements, Tensor};

#[test]
fn parquet_of_every_encoding_and_compression() {
    for file in ["snappy_v1", "zstd_v2", "gzip_plain", "lz4_delta", "none_v1_small_pages"] {
        let columns = ["id", "age", "price", "half", "big", "u32", "ok", "money", "city", "day", "vec"];
        let options =
            OpenOptions { features: Some(names(&columns)), groups: names(&["city", "age"]), ..OpenOptions::default() };
        let data = Dataset::open(&fixture(&format!("table_{file}.parquet")), &options).unwrap();
        assert_eq!((data.len(), data.feature_shape()), (300, &[13][..]), "{file}");
        let classes = LabelKind::Classes { count: 2, names: Some(names(&["no", "yes"])) };
        assert_eq!(data.label_kind(), &classes);
        assert_eq!(data.groups()[0].values, ["Bonn", "Köln", "Ulm"]);
        let mut row = 0usize;
        for batch in data.batches(37) {
            let batch = batch.unwrap();
            for (i, x) in batch.rows().enumerate() {
                let k = row as f32;
                let or_nan = |missing: bool, v: f32| if missing { f32::NAN } else { v };
                let city = row % 3;
                let expected = [
                    k,
                    or_nan(row.is_multiple_of(7), (row % 90) as f32),
                    k * 0.25 - 3.0,
                    (row % 5) as f32 * 0.5,
                    k * 1000.0,
                    4_294_967_295.0,
                    or_nan(row.is_multiple_of(11), (row % 2) as f32),
                    k / 100.0,
                    or_nan(row.is_multiple_of(13), [0.0, 2.0, 1.0][city]),
                    18_262.0 + k,
                    k,
                    k + 0.5,
                    -1.0,
                ];
                for (column, (a, b)) in x.iter().zip(expected).enumerate() {
                    assert!(a.is_nan() && b.is_nan() || (a - b).abs() < 1e-4, "{file} row {row} {column}: {a} {b}");
                }
                assert_eq!(batch.row_ids[i], row as u64);
                assert_eq!(batch.labels.classes().unwrap()[i], row % 2);
                assert_eq!(batch.groups[0][i], (!row.is_multiple_of(13)).then_some([0, 2, 1][city]));
                row += 1;
            }
        }
        assert_eq!(row, 300);
        // Across row groups and pages, in any order and with repetitions.
        let order: Vec<usize> = (0..300).map(|i| i * 7 % 300).chain([5, 5]).collect();
        let picked: Vec<u64> = data.batches_in(&order, 50).unwrap().flat_map(|b| b.unwrap().row_ids).collect();
        assert_eq!(picked, order.iter().map(|&r| r as u64).collect::<Vec<_>>());
        let some = data.select(&[3, 130, 299]).unwrap();
        assert_eq!(all(&some).rows().map(|r| r[0]).collect::<Vec<_>>(), [3.0, 130.0, 299.0]);
    }
}

#[test]
fn parquet_columns_that_become_no_numbers_are_named() {
    let error = message(&open(&fixture("nested.parquet")).unwrap_err());
    assert!(error.contains("\"ll\"") && error.contains("choose the feature columns"), "{error}");
    let options = OpenOptions { features: Some(names(&["a", "m.p"])), ..OpenOptions::default() };
    let data = Dataset::open(&fixture("nested.parquet"), &options).unwrap();
    assert_eq!(values(&all(&data)), [1.0, 1.0, 2.0, 2.0]);
    let options = OpenOptions { features: Some(names(&["ll"])), ..OpenOptions::default() };
    assert!(matches!(Dataset::open(&fixture("nested.parquet"), &options), Err(DataError::Unsupported { .. })));
}

#[test]
fn lists_of_another_length_are_bad_rows() {
    let mut options = OpenOptions { features: Some(names(&["v"])), ..OpenOptions::default() };
    let data = Dataset::open(&fixture("ragged_lists.parquet"), &options).unwrap();
    assert!(matches!(data.load(), Err(DataError::BadRow { row: 2, .. })));
    options.on_bad_row = OnBadRow::Skip;
    let data = Dataset::open(&fixture("ragged_lists.parquet"), &options).unwrap();
    assert_eq!(data.bad_rows().iter().map(|b| b.row).collect::<Vec<_>>(), [2, 3]);
    let batch = all(&data);
    assert_eq!((batch.row_ids.as_slice(), values(&batch)), (&[0, 1, 4][..], &[1.0, 2.0, 3.0, 4.0, 6.0, 7.0][..]));
}

#[test]
fn what_is_written_as_parquet_is_read_again() {
    let folder = Folder::new();
    let path = folder.path("rows.parquet");
    let column = |name: &str, kind| ParquetColumn { name: name.into(), kind };
    let columns = vec![
        column("x", ParquetKind::Tensor(vec![1, 2, 2])),
        column("city", ParquetKind::Text),
        column("ok", ParquetKind::Bool),
        column("weight", ParquetKind::Float),
        column("y", ParquetKind::Int),
    ];
    let mut writer = ParquetWriter::create(&path, columns).unwrap();
    for start in [0i64, 2] {
        let x: Vec<f32> = (start * 4..start * 4 + 8).map(|i| i as f32).collect();
        writer
            .write(&[
                ParquetValues::Float(&x),
                ParquetValues::Text(&names(&["a", ""])),
                ParquetValues::Bool(&[true, false]),
                ParquetValues::Float(&[0.5, f32::NAN]),
                ParquetValues::Int(&[start, start + 1]),
            ])
            .unwrap();
    }
    assert!(!path.exists(), "a file that is not complete has no name yet");
    writer.finish().unwrap();
    let options = OpenOptions { groups: names(&["city", "ok"]), ..OpenOptions::default() };
    let data = Dataset::open(path.to_str().unwrap(), &options).unwrap();
    assert_eq!(data.feature_shape(), [1, 2, 2]);
    assert_eq!(data.label_kind(), &LabelKind::Classes { count: 4, names: None });
    let batch = all(&data);
    assert_eq!(values(&batch), (0..16).map(|i| i as f32).collect::<Vec<_>>());
    assert_eq!(batch.groups[0], [Some(0), None, Some(0), None]);
    assert_eq!(batch.groups[1], [Some(1), Some(0), Some(1), Some(0)]);
    // The same data set through the writer for whole data sets: same content, same hash.
    let copy = folder.path("copy.parquet");
    write_parquet(&data, &copy).unwrap();
    let copy = Dataset::open(copy.to_str().unwrap(), &options).unwrap();
    assert_eq!(copy.content_hash().unwrap(), data.content_hash().unwrap());
    assert_eq!(std::fs::read_dir(folder.path("")).unwrap().count(), 2, "no temporary file is left");
}

#[test]
fn pages_of_wide_rows_stay_small() {
    let folder = Folder::new();
    let path = folder.path("wide.parquet");
    let column = ParquetColumn { name: "x".into(), kind: ParquetKind::Tensor(vec![128, 128]) };
    let mut writer = ParquetWriter::create(&path, vec![column]).unwrap();
    let x: Vec<f32> = (0..200 * 128 * 128).map(|i| i as f32).collect();
    writer.write(&[ParquetValues::Float(&x)]).unwrap();
    writer.finish().unwrap();
    let mut options = OpenOptions { unlabelled: true, ..OpenOptions::default() };
    (options.limits.page_bytes, options.limits.memory_bytes) = (2 << 20, 4 << 20);
    let data = Dataset::open(path.to_str().unwrap(), &options).unwrap();
    let joined: Vec<f32> = data.batches(13).flat_map(|b| values(&b.unwrap()).to_vec()).collect();
    assert!(joined == x);
    options.limits.page_bytes = 512 << 10;
    let tight = Dataset::open(path.to_str().unwrap(), &options).unwrap();
    assert!(matches!(tight.batches(1).next(), Some(Err(DataError::Limit { option: "page_bytes", .. }))));
}

#[test]
fn npz_as_numpy_writes_it() {
    let options = OpenOptions { groups: names(&["sex", "raw", "site"]), ..OpenOptions::default() };
    let data = Dataset::open(&fixture("numpy_packed.npz"), &options).unwrap();
    assert_eq!(data.feature_names().unwrap(), ["a", "b", "c", "d", "e", "f"]);
    let batch = all(&data);
    assert_eq!(values(&batch), (0..30).map(|i| i as f32).collect::<Vec<_>>());
    assert_eq!(batch.labels, Labels::Classes(vec![0, 1, 2, 1, 0]));
    assert_eq!(data.groups()[0].values, ["", "f", "m", "mé"]);
    assert_eq!(data.groups()[1].values, ["", "a", "bc", "d", "e"]);
    assert_eq!(data.groups()[2].values, ["2", "3", "10"], "numbers are sorted by size");
    assert_eq!(batch.groups[2], [Some(1), Some(2), Some(1), Some(0), Some(2)]);

    // Fortran order, big-endian doubles, half-precision targets, not packed.
    let data = open(&fixture("numpy_fortran.npz")).unwrap();
    assert_eq!(data.feature_shape(), [3, 2]);
    assert_eq!(values(&all(&data)), (0..24).map(|i| i as f32).collect::<Vec<_>>());
    assert_eq!((data.label_kind(), all(&data).labels), (&LabelKind::Target, Labels::Targets(vec![0.5, 1.0, 2.0, 3.0])));

    // Images of bytes, channels last: scaled to one, channels first.
    let data = open(&fixture("numpy_images.npz")).unwrap();
    assert_eq!(data.feature_shape(), [3, 6, 5]);
    let batch = all(&data);
    assert_eq!(batch.labels, Labels::Classes(vec![1, 0]));
    for (i, &v) in values(&batch).iter().enumerate() {
        let (n, c, at) = (i / 90, i / 30 % 3, i % 30);
        assert_eq!(v, (n * 90 + at * 3 + c) as f32 / 255.0);
    }
    let raw = OpenOptions { scale: Scale::None, ..OpenOptions::default() };
    let data = Dataset::open(&fixture("numpy_images.npz"), &raw).unwrap();
    assert_eq!((data.feature_shape(), values(&all(&data))[59]), (&[6, 5, 3][..], 59.0));
}

#[test]
fn npz_errors_say_what_there_is() {
    let options = OpenOptions { features: Some(names(&["pixels"])), ..OpenOptions::default() };
    let error = message(&Dataset::open(&fixture("numpy_packed.npz"), &options).unwrap_err());
    assert!(error.contains("pixels") && error.contains("x [5, 6]") && error.contains("sex"), "{error}");
    let options = OpenOptions { label: Some("target".into()), ..OpenOptions::default() };
    assert!(matches!(Dataset::open(&fixture("numpy_packed.npz"), &options), Err(DataError::Missing { .. })));
    let same = OpenOptions { label: Some("x".into()), ..OpenOptions::default() };
    assert!(matches!(Dataset::open(&fixture("numpy_packed.npz"), &same), Err(DataError::Label { .. })));
}

#[test]
fn what_is_written_as_npz_is_read_again() {
    let folder = Folder::new();
    let path = folder.path("out.npz");
    let int = |dtype, v: &[i64]| Tensor::new(dtype, vec![v.len()], Elements::Int(v.to_vec())).unwrap();
    let float = |dtype, v: &[f32]| Tensor::new(dtype, vec![v.len()], Elements::Float(v.to_vec())).unwrap();
    let x = Tensor::f32(vec![3, 2], vec![1.0, -2.5, f32::NAN, 0.0, f32::INFINITY, 1e-40]).unwrap();
    let tensors = [
        ("x", x),
        ("y", int(DType::I64, &[0, 2, 1])),
        ("i1", int(DType::I8, &[-128, 127, 0])),
        ("i2", int(DType::I16, &[-5, 5, 0])),
        ("i4", int(DType::I32, &[-70_000, 5, 0])),
        ("u2", int(DType::U16, &[65_535, 5, 0])),
        ("f2", float(DType::F16, &[0.5, 2.0, -1.0])),
        ("f8", float(DType::F64, &[0.5, 2.0, -1.0])),
        ("b", Tensor::bool(vec![3], vec![true, false, true]).unwrap()),
        ("t", Tensor::new(DType::Text, vec![3], Elements::Text(names(&["é", "", "long text"]))).unwrap()),
    ];
    let arrays: Vec<(&str, &Tensor)> = tensors.iter().map(|(n, t)| (*n, t)).collect();
    write_npz(&path, &arrays).unwrap();
    let first = std::fs::read(&path).unwrap();
    write_npz(&path, &arrays).unwrap();
    assert_eq!(first, std::fs::read(&path).unwrap(), "same arrays, same bytes");
    let groups = names(&["i1", "i2", "i4", "u2", "f2", "f8", "b", "t"]);
    let options = OpenOptions { groups, ..OpenOptions::default() };
    let data = Dataset::open(path.to_str().unwrap(), &options).unwrap();
    let batch = all(&data);
    assert!(values(&batch)[2].is_nan() && batch.missing == 1);
    assert_eq!(values(&batch)[4..], [f32::INFINITY, 1e-40]);
    assert_eq!(batch.labels, Labels::Classes(vec![0, 2, 1]));
    let text = |g: usize| -> Vec<&str> {
        batch.groups[g].iter().map(|i| data.groups()[g].values[i.unwrap()].as_str()).collect()
    };
    assert_eq!(text(0), ["-128", "127", "0"]);
    assert_eq!(text(1), ["-5", "5", "0"]);
    assert_eq!(text(2), ["-70000", "5", "0"]);
    assert_eq!(text(3), ["65535", "5", "0"]);
    assert_eq!((text(4), text(5)), (vec!["0.5", "2", "-1"], vec!["0.5", "2", "-1"]));
    assert_eq!((text(6), text(7)), (vec!["true", "false", "true"], vec!["é", "", "long text"]));
    let scalar = Tensor::new(DType::I64, Vec::new(), Elements::Int(vec![16_000])).unwrap();
    let deep = Tensor::f32(vec![1, 2, 1, 3], (0..6).map(|v| v as f32).collect()).unwrap();
    let mut arrays = arrays;
    arrays.extend([("scalar", &scalar), ("deep", &deep)]);
    write_npz(&path, &arrays).unwrap();
    let wanted: Vec<&str> = arrays.iter().map(|(n, _)| *n).rev().collect();
    let read = read_npz(&path, &wanted, Limits::default()).unwrap();
    for (read, (name, written)) in read.iter().zip(arrays.iter().rev()) {
        assert_eq!((read.dtype(), read.shape()), (written.dtype(), written.shape()), "{name}");
        // NaN is not equal to itself, so texts are compared.
        assert_eq!(format!("{:?}", read.elements()), format!("{:?}", written.elements()), "{name}");
    }
    let unknown = read_npz(&path, &["sr"], Limits::default()).unwrap_err().to_string();
    assert!(unknown.contains("sr") && unknown.contains("scalar []"), "{unknown}");
    // A failed write leaves the old file alone.
    assert!(write_npz(&folder.path("no/such/folder.npz"), &arrays).is_err());
}

fn idx(kind: u8, dims: &[u32], data: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 0, kind, dims.len() as u8];
    dims.iter().for_each(|d| out.extend(d.to_be_bytes()));
    out.extend(data);
    out
}

#[test]
fn idx_pairs_packed_or_not() {
    let folder = Folder::new();
    let pixels: Vec<u8> = (0..24).map(|i| i * 10).collect();
    let images = idx(8, &[4, 2, 3], &pixels);
    let labels = idx(8, &[4], &[3, 0, 1, 3]);
    let plain = format!("{}:{}", folder.file("images", &images), folder.file("labels", &labels));
    let packed = format!("{}:{}", folder.file("i.gz", gzip(&images)), folder.file("l.gz", gzip(&labels)));
    let mut hashes = Vec::new();
    for spec in [plain, packed] {
        let data = open(&spec).unwrap();
        assert_eq!(data.feature_shape(), [1, 2, 3]);
        assert_eq!(data.label_kind(), &LabelKind::Classes { count: 4, names: None });
        let batch = all(&data);
        assert_eq!(values(&batch), pixels.iter().map(|&p| f32::from(p) / 255.0).collect::<Vec<_>>());
        assert_eq!(batch.labels, Labels::Classes(vec![3, 0, 1, 3]));
        let back: Vec<u64> = data.batches_in(&[3, 1, 1], 2).unwrap().flat_map(|b| b.unwrap().row_ids).collect();
        assert_eq!(back, [3, 1, 1]);
        hashes.push(data.content_hash().unwrap());
    }
    assert_eq!(hashes[0], hashes[1]);
    let short = folder.file("short", idx(8, &[3], &[1, 2, 3]));
    let error = open(&format!("{}:{short}", folder.path("images").display())).unwrap_err();
    assert!(matches!(error, DataError::RowCount { rows: 3, expected: 4, .. }), "{error}");
    // Alone, the images have no labels.
    assert_eq!(open(folder.path("images").to_str().unwrap()).unwrap().label_kind(), &LabelKind::None);
}

#[test]
fn csv_with_all_that_hand_written_files_have() {
    let folder = Folder::new();
    let text = "\u{feff}age,\"city, state\",member,score,label\r\n\
                31,\"Ulm, \"\"BW\"\"\",true, 0.5 ,yes\r\n\
                \r\n\
                ,Köln,false,NA,no\r\n\
                45, Bonn ,,1e-3,yes\r\n\
                27,\"two\nlines\",true,-2,no";
    for (name, content) in [("a.csv", text.as_bytes().to_vec()), ("a.csv.gz", gzip(text.as_bytes()))] {
        let options = OpenOptions { groups: names(&["city, state"]), ..OpenOptions::default() };
        let data = Dataset::open(&folder.file(name, content), &options).unwrap();
        assert_eq!(data.feature_names().unwrap(), ["age", "member", "score"]);
        let city = &data.columns()[1];
        assert_eq!(city.role, Role::Group);
        assert_eq!(
            city.kind,
            ColumnKind::Categorical { values: names(&["Bonn", "Köln", "Ulm, \"BW\"", "two\nlines"]) }
        );
        let batch = all(&data);
        assert_eq!((batch.len(), batch.missing), (4, 3));
        assert_eq!(values(&batch)[..3], [31.0, 1.0, 0.5]);
        assert!(values(&batch)[3].is_nan() && values(&batch)[5].is_nan() && values(&batch)[7].is_nan());
        assert_eq!(batch.labels, Labels::Classes(vec![1, 0, 1, 0]));
        assert_eq!(batch.groups[0], [Some(2), Some(1), Some(0), Some(3)]);
    }
}

#[test]
fn csv_separators_and_headers_are_recognised_or_given() {
    let folder = Folder::new();
    for (text, separator) in [("a;b;y\n1,5;2;0\n", ';'), ("a\tb\ty\n1\t2\t0\n", '\t'), ("a b y\n1 2 0\n", ' ')] {
        let data = open(&folder.file("s.csv", text)).unwrap();
        assert_eq!(data.feature_names().unwrap(), ["a", "b"], "{separator:?}");
    }
    let data = open(&folder.file("n.csv", "5.5,x,0\n6.5,z,1\n")).unwrap();
    assert_eq!((data.len(), data.feature_names().unwrap()), (2, &names(&["column_1", "column_2"])[..]));
    let options = OpenOptions { header: Some(true), delimiter: Some('|'), ..OpenOptions::default() };
    let data = Dataset::open(&folder.file("h.csv", "1|2|y\n5|6|0\n"), &options).unwrap();
    assert_eq!((data.len(), data.feature_names().unwrap()), (1, &names(&["1", "2"])[..]));
    let same = open(&folder.file("t.csv", "a,a,y\n1,2,0\n")).unwrap_err();
    assert!(message(&same).contains("occurs twice"), "{same}");
}

#[test]
fn bad_rows_are_named_or_skipped_and_never_lost() {
    let folder = Folder::new();
    let mut text = String::from("a,b,label\n");
    (0..100).for_each(|i| text += &format!("{i},{},{}\n", i * 2, i % 3));
    text += "oops,1,0\n1,2\n3,4,5,6\n7,8,\n9,10,-1\n";
    let spec = folder.file("bad.csv", &text);
    let error = open(&spec).unwrap_err();
    assert!(matches!(error, DataError::BadRow { row: 101, .. }), "{error}");
    let skip = OpenOptions { on_bad_row: OnBadRow::Skip, ..OpenOptions::default() };
    let data = Dataset::open(&spec, &skip).unwrap();
    assert_eq!((data.len(), data.bad_row_count()), (100, 5));
    let reasons: Vec<&str> = data.bad_rows().iter().map(|b| b.reason.as_str()).collect();
    assert!(reasons[0].contains("\"oops\""), "{reasons:?}");
    assert!(reasons[1].contains("2 cells") && reasons[2].contains("4 cells"), "{reasons:?}");
    assert!(reasons[3].contains("missing") && reasons[4].contains("-1"), "{reasons:?}");
    assert_eq!(data.bad_rows().iter().map(|b| b.row).collect::<Vec<_>>(), [100, 101, 102, 103, 104]);
    assert_eq!(all(&data).row_ids, (0..100).collect::<Vec<u64>>());
    // In the middle, too, where positions and row numbers part.
    let spec = folder.file("middle.csv", "a,label\n1,0\n2,\n3,1\n,0\n5,\n6,1\n");
    let data = Dataset::open(&spec, &skip).unwrap();
    assert_eq!(all(&data).row_ids, [0, 2, 3, 5]);
    assert_eq!(all(&data.select(&[3, 1]).unwrap()).row_ids, [5, 2]);
    assert_eq!(all(&data.take(2)).row_ids, [0, 2]);
    let mut few = skip.clone();
    few.limits.bad_rows = 1;
    assert!(matches!(Dataset::open(&spec, &few), Err(DataError::TooManyBadRows { row: 1, .. })));
    let none = folder.file("none.csv", "a,label\n1,\n2,\n");
    assert!(message(&Dataset::open(&none, &skip).unwrap_err()).contains("none of the 2 rows"));
}

#[test]
fn labels_become_classes_or_targets() {
    let folder = Folder::new();
    let kind = |text: &str, options: &OpenOptions| {
        Dataset::open(&folder.file("l.csv", text), options).map(|d| (d.label_kind().clone(), all(&d).labels))
    };
    let auto = OpenOptions::default();
    let classes = |count, names: Option<&[&str]>| LabelKind::Classes { count, names: names.map(common::names) };
    let (k, l) = kind("a,y\n1,0\n1,4\n", &auto).unwrap();
    assert_eq!((k, l), (classes(5, None), Labels::Classes(vec![0, 4])));
    assert_eq!(kind("a,y\n1,0.5\n1,4\n", &auto).unwrap().1, Labels::Targets(vec![0.5, 4.0]));
    assert_eq!(kind("a,y\n1,true\n1,false\n", &auto).unwrap(), (classes(2, None), Labels::Classes(vec![1, 0])));
    let regression = OpenOptions { task: Task::Regression, ..OpenOptions::default() };
    assert_eq!(kind("a,y\n1,0\n1,4\n", &regression).unwrap().1, Labels::Targets(vec![0.0, 4.0]));
    assert!(matches!(kind("a,y\n1,u\n1,v\n", &regression), Err(DataError::Label { .. })));
    let classification = OpenOptions { task: Task::Classification, ..OpenOptions::default() };
    assert_eq!(kind("a,y\n1,0.0\n1,2.0\n", &classification).unwrap().1, Labels::Classes(vec![0, 2]));
    assert!(matches!(kind("a,y\n1,0.5\n1,2.0\n", &classification), Err(DataError::BadRow { row: 0, .. })));
    let named = OpenOptions { class_names: Some(names(&["z", "a"])), ..OpenOptions::default() };
    assert_eq!(kind("x,y\n1,a\n1,z\n", &named).unwrap(), (classes(2, Some(&["z", "a"])), Labels::Classes(vec![1, 0])));
    assert!(matches!(kind("x,y\n1,a\n1,q\n", &named), Err(DataError::BadRow { row: 1, .. })));
    assert!(matches!(kind("x,y\n1,0\n1,2\n", &named), Err(DataError::BadRow { row: 1, .. })));
    let year = message(&kind("x,y\n1,19991231\n", &auto).unwrap_err());
    assert!(year.contains("task = regression"), "{year}");
    let none = OpenOptions { unlabelled: true, ..OpenOptions::default() };
    assert_eq!(kind("x,y\n1,2\n", &none).unwrap().0, LabelKind::None);
}

#[test]
fn categories_as_indices_or_one_hot() {
    let folder = Folder::new();
    let spec = folder.file("c.csv", "colour,size,y\nred,1,0\n?,2,1\nblue,3,0\n");
    let data = open(&spec).unwrap();
    let batch = all(&data);
    assert!(values(&batch)[2].is_nan());
    assert_eq!((values(&batch)[0], values(&batch)[4]), (1.0, 0.0));
    let options = OpenOptions { one_hot: true, categorical: names(&["size"]), ..OpenOptions::default() };
    let data = Dataset::open(&spec, &options).unwrap();
    assert_eq!(data.feature_names().unwrap(), ["colour=blue", "colour=red", "size=1", "size=2", "size=3"]);
    assert_eq!(values(&all(&data)), [0., 1., 1., 0., 0., 0., 0., 0., 1., 0., 1., 0., 0., 0., 1.]);
    assert_eq!(data.columns()[1].features, Some((2, 3)));
    let mut few = OpenOptions { unlabelled: true, ..OpenOptions::default() };
    few.limits.categories = 1;
    assert!(message(&Dataset::open(&spec, &few).unwrap_err()).contains("\"colour\""));
}

#[test]
fn pictures_as_pillow_reads_them() {
    let folder = Folder::new();
    let expected = std::fs::read_to_string(fixture("pictures_expected.csv")).unwrap();
    for line in expected.lines() {
        let parts: Vec<&str> = line.split(';').collect();
        let numbers: Vec<i32> = parts[2].split(' ').map(|n| n.parse().unwrap()).collect();
        let name = format!("{}/only/{}", parts[0], parts[0]);
        folder.file(&name, std::fs::read(fixture(&format!("pictures/{}", parts[0]))).unwrap());
        let image_size = Some(if parts[1] == "rgb" { [3, 16, 12] } else { [1, 8, 8] });
        let options = OpenOptions { image_size, ..OpenOptions::default() };
        let data = Dataset::open(folder.path(parts[0]).to_str().unwrap(), &options).unwrap();
        let got: Vec<i32> = values(&all(&data)).iter().map(|v| (v * 255.0).round() as i32).collect();
        assert_eq!(got.len(), numbers.len());
        let worst = got.iter().zip(&numbers).map(|(a, b)| (a - b).abs()).max().unwrap();
        // PNG is exact. JPEG decoders may round differently; colour conversion adds a little.
        let allowed = if parts[0].ends_with(".jpg") { 3 } else { 0 };
        assert!(worst <= allowed, "{line:.40}: differs by {worst}");
    }
}

#[test]
fn image_folders_by_class_and_by_manifest() {
    let folder = Folder::new();
    let picture = |name: &str| std::fs::read(fixture(&format!("pictures/{name}"))).unwrap();
    for (path, name) in [("10/a.png", "rgb.png"), ("2/b.png", "palette.png"), ("2/sub/c.jpg", "colour.jpg")] {
        folder.file(path, picture(name));
    }
    folder.file("2/.hidden", "passed over");
    let data = open(&folder.spec()).unwrap();
    assert_eq!(data.label_kind(), &LabelKind::Classes { count: 2, names: Some(names(&["2", "10"])) });
    assert_eq!((data.feature_shape(), all(&data).labels), (&[3, 16, 12][..], Labels::Classes(vec![1, 0, 0])));

    folder.file("2/notes.txt", "no picture");
    assert!(matches!(open(&folder.spec()).unwrap().load(), Err(DataError::BadRow { row: 2, .. })));
    let skip = OpenOptions { on_bad_row: OnBadRow::Skip, ..OpenOptions::default() };
    let data = Dataset::open(&folder.spec(), &skip).unwrap();
    assert_eq!(data.bad_rows().len(), 1);
    assert!(data.bad_rows()[0].reason.contains("notes.txt") && data.len() == 3, "{:?}", data.bad_rows());

    folder.file("manifest.csv", "file,label,site\n2/b.png,1,north\n10/a.png,0,south\n2/b.png,3,\n");
    let options = OpenOptions { groups: names(&["site"]), ..OpenOptions::default() };
    let data = Dataset::open(&folder.spec(), &options).unwrap();
    let batch = all(&data);
    assert_eq!(batch.labels, Labels::Classes(vec![1, 0, 3]), "numbers stay class indices");
    assert_eq!(batch.groups[0], [Some(0), Some(1), None]);
    assert_eq!(batch.row_hashes()[0], batch.row_hashes()[2]);
    assert_ne!(batch.row_hashes()[0], batch.row_hashes()[1]);
}

#[test]
fn content_decides_not_the_name() {
    let folder = Folder::new();
    let parquet = std::fs::read(fixture("table_zstd_v2.parquet")).unwrap();
    assert_eq!(open(&folder.file("data.csv", parquet)).unwrap().len(), 300);
    let npz = std::fs::read(fixture("numpy_packed.npz")).unwrap();
    assert_eq!(open(&folder.file("data.parquet", npz)).unwrap().len(), 5);
    let pickle = std::fs::read(fixture("plain.pkl")).unwrap();
    for error in [
        open(&folder.file("data.npz", &pickle)).unwrap_err(),
        open(&folder.file("data.csv.gz", gzip(&pickle))).unwrap_err(),
        open(&folder.file("old.csv", "(dp0\nS'x'\np1\nI1\ns.")).unwrap_err(),
        open(&fixture("numpy_object.npz")).unwrap_err(),
    ] {
        assert!(matches!(error, DataError::Pickle { .. }), "{error}");
        assert!(message(&error).contains("numpy.savez"), "{error}");
    }
    for (name, content) in
        [("e.csv", &b""[..]), ("j.csv", b"{\"a\": 1}"), ("b.csv", b"\x01\x00\x02"), ("p", b"\x89PNG")]
    {
        assert!(matches!(open(&folder.file(name, content)), Err(DataError::Format { .. })), "{name}");
    }
    assert!(matches!(open("/no/such/file.csv"), Err(DataError::Read { .. })));
}

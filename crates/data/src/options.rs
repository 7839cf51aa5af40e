/// How a data set is read. `OpenOptions::default()` fits most files.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenOptions {
    /// Columns or arrays that form the features, in this order. Default: the array `x`; in a table every column that is
    /// neither label nor group.
    pub features: Option<Vec<String>>,
    /// Column or array with the label. Default: the array `y`; the last column of a table; the class folder.
    pub label: Option<String>,
    /// The data has no label; without this, the last column of a table is taken as one.
    pub unlabelled: bool,
    /// Columns or arrays by which results are compared (age band, sex, hospital).
    pub groups: Vec<String>,
    /// Group columns stay out of the features unless this is set or they are named in `features`.
    pub groups_are_features: bool,
    /// `[channels, height, width]` of the model's input. Image files are converted and resized to it; rows of arrays and
    /// tables with as many elements are laid out in it.
    pub image_size: Option<[usize; 3]>,
    /// What to do with rows that cannot be read.
    pub on_bad_row: OnBadRow,
    /// How pixels become numbers.
    pub scale: Scale,
    /// What the labels are.
    pub task: Task,
    /// Names of the classes, in the order of their indices. Text labels must be among them.
    pub class_names: Option<Vec<String>>,
    /// Columns that are categories although they look like numbers.
    pub categorical: Vec<String>,
    /// Categories become one column of 0 and 1 per value instead of one column with the value's index.
    pub one_hot: bool,
    /// Whether a CSV file starts with a line of names. Default: it does unless that line holds a number.
    pub header: Option<bool>,
    /// What separates the cells of a CSV file. Default: the most frequent of comma, semicolon, tab and bar in the first
    /// line, or a space where there is none of them.
    pub delimiter: Option<char>,
    /// Cells of a CSV file that mean "not known".
    pub missing: Vec<String>,
    /// What a file may ask of this machine.
    pub limits: Limits,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            features: None,
            label: None,
            unlabelled: false,
            groups: Vec::new(),
            groups_are_features: false,
            image_size: None,
            on_bad_row: OnBadRow::Fail,
            scale: Scale::Auto,
            task: Task::Auto,
            class_names: None,
            categorical: Vec::new(),
            one_hot: false,
            header: None,
            delimiter: None,
            missing: ["", "?", "NA", "N/A", "NaN", "nan", "null", "NULL"].map(String::from).into(),
            limits: Limits::default(),
        }
    }
}

/// What to do with rows that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnBadRow {
    /// Stop with an error that names the row and the reason.
    #[default]
    Fail,
    /// Leave the row out, count it and list it in [`crate::Dataset::bad_rows`]. The whole source is read once at opening.
    Skip,
}

/// How pixels become numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scale {
    /// 8-bit images (files, IDX and arrays of unsigned bytes with two or three dimensions per row) are divided by 255;
    /// everything else is taken as it is.
    #[default]
    Auto,
    /// Numbers as they are.
    None,
    /// All unsigned 8-bit features are divided by 255, also flat ones.
    Unit,
}

/// What the labels are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Task {
    /// Integers, truth values and text are classes; floats are targets.
    #[default]
    Auto,
    /// Labels are classes; floats must be whole numbers.
    Classification,
    /// Labels are numbers to be predicted.
    Regression,
}

/// What a file may ask of this machine. A file over a limit is refused with an error that names the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that may be held to read rows out of order, or an array in Fortran order (256 MiB).
    pub memory_bytes: u64,
    /// Bytes of one row as stored (256 MiB).
    pub row_bytes: u64,
    /// Bytes of one array of an NPZ file, unpacked (1 TiB; arrays are streamed).
    pub member_bytes: u64,
    /// Unpacked size over packed size of an NPZ member of more than 64 MiB (200; deflate cannot pass 1,032).
    pub ratio: u64,
    /// Columns, arrays or archive members (65,536).
    pub columns: usize,
    /// Distinct values of a categorical, group or text label column (65,536).
    pub categories: usize,
    /// Bad rows that may be skipped (1,000,000).
    pub bad_rows: usize,
    /// Bytes of one CSV record (16 MiB).
    pub record_bytes: usize,
    /// Bytes of one Parquet page, unpacked (128 MiB), and of the pages that are open at the same time.
    pub page_bytes: u64,
    /// Bytes of a Parquet footer (64 MiB).
    pub footer_bytes: u64,
    /// Width and height of an image file (16,384).
    pub image_side: usize,
    /// Pixels of an image file (64 Mi).
    pub image_pixels: u64,
    /// Bytes of an image file (128 MiB).
    pub image_bytes: u64,
    /// Files of an image folder (10,000,000).
    pub files: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            row_bytes: 256 << 20,
            member_bytes: 1 << 40,
            ratio: 200,
            columns: 65_536,
            categories: 65_536,
            bad_rows: 1_000_000,
            record_bytes: 16 << 20,
            page_bytes: 128 << 20,
            footer_bytes: 64 << 20,
            image_side: 16_384,
            image_pixels: 64 << 20,
            image_bytes: 128 << 20,
            files: 10_000_000,
        }
    }
}

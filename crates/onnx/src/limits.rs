/// What a file may contain before it is refused.
///
/// The defaults load every ordinary network: 2 GiB in the file itself (more than that no protobuf reader accepts) and
/// 16 GiB of external data. Lower them where files come from strangers and memory is short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the file itself. Default: 2 GiB.
    pub file_bytes: u64,
    /// Bytes of external data, over all tensors; a range that several tensors share counts once. Default: 16 GiB.
    pub external_bytes: u64,
    /// Bytes that the decoded messages may take beyond the file's own size. Tiny messages are a hundred times larger in
    /// memory than in the file, which is what this bounds. Default: 512 MiB.
    pub decode_overhead_bytes: u64,
    /// Nodes, over all graphs and functions, also after functions are inlined. Default: 1,000,000.
    pub nodes: u64,
    /// Tensors, over all graphs, functions and attributes. Default: 1,000,000.
    pub tensors: u64,
    /// Elements of one tensor. Default: 2³².
    pub tensor_elements: u64,
    /// Elements of all tensors together. Default: 2³⁴.
    pub total_elements: u64,
    /// Messages inside messages; never more than 96, whatever is asked. Default: 96.
    pub message_depth: usize,
    /// Graphs inside graphs (branches, loop bodies). Default: 16.
    pub subgraph_depth: usize,
    /// Bytes of one name; documentation and metadata values are free. Default: 16 KiB.
    pub name_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 1 << 31,
            external_bytes: 16 << 30,
            decode_overhead_bytes: 512 << 20,
            nodes: 1_000_000,
            tensors: 1_000_000,
            tensor_elements: 1 << 32,
            total_elements: 1 << 34,
            message_depth: 96,
            subgraph_depth: 16,
            name_bytes: 16 << 10,
        }
    }
}

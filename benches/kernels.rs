//! Single products with ternary matrices of BitNet 2B-4T's shapes: `cargo bench --profile release --bench kernels -- zen4`.
//!
//! Group `kernels`: `<backend>/<rows>x<columns>/<tokens>`, with the ternary kernels of every tier that runs here and, beside
//! them, ggml's own of the same tier. Matrices are TQ2_0 with one scale, as BitNet has them, but for `scales`, which have one for each
//! block, and `q6_k`, the output matrix. Criterion's throughput is multiply-adds a second, and beside it the bytes of the matrix, in
//! the form that the kernel reads, in that time. Group `attention`: `<backend>/<cache type>/<tokens>`, its heads: each token sees all
//! before it, and what is counted are the multiply-adds that this takes. Group `limits` has what binds them: reading memory, with the same threads, and the
//! multiply-adds of each tier's kernel on registers alone, on one thread. `GGUF_LOADER_THREADS` sets the threads.

#[cfg(target_os = "linux")]
use std::ptr::NonNull;
use std::{hint::black_box, num::NonZeroU32, thread, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gguf_loader::{
    backend::{Backend, Cache, CacheType, Inputs, Matrix, Queries, registered},
    gguf::TensorType,
    hardware::Hardware,
    knobs::Knobs,
};
#[cfg(target_os = "linux")]
use nix::sys::mman::{MmapAdvise, madvise};

const TOKENS: &[usize] = &[1, 4, 16, 128, 512];

/// A matrix to multiply with.
struct Shape {
    /// Whether blocks have scales of their own.
    has_scales: bool,
    tensor_type: TensorType,
    rows: usize,
    columns: usize,
    tokens: &'static [usize],
}

impl Shape {
    const fn ternary(rows: usize, columns: usize) -> Self {
        Self { has_scales: false, tensor_type: TensorType::TQ2_0, rows, columns, tokens: TOKENS }
    }

    fn name(&self) -> String {
        let suffix = match (self.tensor_type, self.has_scales) {
            (TensorType::Q6_K, _) => "/q6_k",
            (_, true) => "/scales",
            (_, false) => "",
        };
        format!("{}x{}{suffix}", self.rows, self.columns)
    }

    /// Codes do not matter for the time. One byte throughout makes one scale of all, too; with another one here and there are several.
    fn data(&self) -> Vec<u8> {
        let block = self.tensor_type.block_bytes() as usize;
        let mut data = vec![0x55; self.rows * self.columns / self.tensor_type.block_elements() as usize * block];
        if self.has_scales {
            data.chunks_exact_mut(block).skip(1).step_by(2).for_each(|block| block[block.len() - 1] = 0x54);
        }
        data
    }
}

/// Queries and outputs, keys and values, gate and up, down; those of other models; the output matrix, whose prompts ask for a
/// few tokens at most.
const SHAPES: [Shape; 6] = [
    Shape::ternary(2560, 2560),
    Shape::ternary(640, 2560),
    Shape::ternary(6912, 2560),
    Shape::ternary(2560, 6912),
    Shape { has_scales: true, ..Shape::ternary(2560, 2560) },
    Shape { has_scales: true, tensor_type: TensorType::Q6_K, rows: 128_256, columns: 2560, tokens: &[1, 4] },
];

fn threads(hardware: &Hardware) -> NonZeroU32 {
    Knobs::from_environment().threads().expect("a number of threads").unwrap_or_else(|| hardware.default_threads())
}

fn backends(hardware: &Hardware) -> Vec<&'static dyn Backend> {
    let mut backends: Vec<_> =
        registered().filter(|backend| backend.id() != "reference" && backend.devices(hardware).is_ok()).collect();
    backends.sort_by_key(|backend| backend.id());
    backends
}

fn kernels(criterion: &mut Criterion) {
    let hardware = Hardware::detect();
    let threads = threads(&hardware);
    let mut group = criterion.benchmark_group("kernels");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for backend in backends(&hardware) {
        let device = backend.devices(&hardware).expect("asked before").remove(0);
        for shape in SHAPES {
            let Shape { tensor_type, rows, columns, tokens, .. } = shape;
            let matrix = Matrix { tensor_type, rows, columns, data: &shape.data() };
            let Some(product) = backend.product(&device, matrix, threads) else { continue };
            let mut product = product.expect("a matrix of whole blocks");
            for &tokens in tokens {
                let inputs: Vec<f32> = (0..columns * tokens).map(|index| (index % 251) as f32 - 125.0).collect();
                let mut products = vec![0.0; rows * tokens];
                let elements = (rows * columns * tokens) as u64;
                group.throughput(Throughput::ElementsAndBytes { elements, bytes: product.bytes() });
                let name = BenchmarkId::new(backend.id(), format!("{}/{tokens}", shape.name()));
                group.bench_function(name, |bencher| {
                    bencher.iter(|| product.multiply(Inputs::new(&inputs, columns), &mut products).expect("a product"));
                });
            }
        }
    }
    group.finish();
}

/// Attention of a prompt to itself, and of a single token to a long context.
fn attention(criterion: &mut Criterion) {
    const KEPT: usize = 5;
    const HEADS: usize = 20;
    const SIZE: usize = 128;
    let hardware = Hardware::detect();
    let threads = threads(&hardware);
    let mut group = criterion.benchmark_group("attention");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for backend in backends(&hardware) {
        let device = backend.devices(&hardware).expect("asked before").remove(0);
        let cases = [
            (CacheType::F16, 128, 128),
            (CacheType::F16, 512, 512),
            (CacheType::Q8_0, 512, 512),
            (CacheType::F16, 1, 4096),
            (CacheType::Q8_0, 1, 4096),
        ];
        for (cache_type, tokens, positions) in cases {
            let values =
                |rows: usize| -> Vec<f32> { (0..rows * SIZE).map(|at| (at % 251) as f32 / 125.0 - 1.0).collect() };
            let kept = values(positions * KEPT);
            let cache = Cache { cache_type, heads: KEPT, key_size: SIZE, value_size: SIZE, keys: &kept, values: &kept };
            let Some(attention) = backend.attention(&device, cache, threads) else { continue };
            let mut attention = attention.expect("a cache of whole blocks");
            let before = positions - tokens;
            let hidden = |at: usize| if at % positions > before + at / positions { f32::NEG_INFINITY } else { 0.0 };
            let mask: Vec<f32> = (0..tokens * positions).map(hidden).collect();
            let query = values(tokens * HEADS);
            let mut results = vec![0.0; query.len()];
            let queries = Queries { tokens, heads: HEADS, values: &query, scale: 0.1, max_bias: 0.0, mask: &mask };
            let seen = tokens * before + tokens * (tokens + 1) / 2;
            group.throughput(Throughput::Elements((seen * HEADS * SIZE * 2) as u64));
            let name = format!("{cache_type:?}/{tokens} of {positions}");
            group.bench_function(BenchmarkId::new(backend.id(), name), |bencher| {
                bencher.iter(|| attention.attend(queries, &mut results).expect("attention"));
            });
        }
    }
    group.finish();
}

/// What no product can exceed.
fn limits(criterion: &mut Criterion) {
    let hardware = Hardware::detect();
    let mut group = criterion.benchmark_group("limits");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for backend in backends(&hardware) {
        let device = backend.devices(&hardware).expect("asked before").remove(0);
        let matrix = Matrix { tensor_type: TensorType::TQ2_0, rows: 1, columns: 256, data: &[0x55; 66] };
        let Some(product) = backend.product(&device, matrix, NonZeroU32::MIN) else { continue };
        let product = product.expect("a matrix of whole blocks");
        const ROUNDS: u32 = 1000;
        let Some(done) = product.multiply_adds(ROUNDS) else { continue };
        group.throughput(Throughput::Elements(done));
        group.bench_function(BenchmarkId::new("multiply-adds", backend.id()), |bencher| {
            bencher.iter(|| product.multiply_adds(black_box(ROUNDS)));
        });
    }
    group.finish();
    memory_read(criterion, threads(&hardware).get() as usize);
}

/// Reads more than any cache holds, with all threads at once, each in several places in turn: a CPU that reads in one place
/// alone waits at the end of each page.
fn memory_read(criterion: &mut Criterion, threads: usize) {
    const BYTES: usize = 512 << 20;
    const PLACES: usize = 4;
    const LINE: usize = 8;
    fn read(words: &[u64]) -> u64 {
        let place = words.len() / PLACES / LINE * LINE;
        let mut sums = [0_u64; LINE];
        for line in (0..place).step_by(LINE) {
            for words in words.chunks_exact(place).take(PLACES) {
                sums.iter_mut().zip(&words[line..line + LINE]).for_each(|(sum, &word)| *sum = sum.wrapping_add(word));
            }
        }
        sums.iter().fold(0, |sum, &word| sum.wrapping_add(word))
    }
    let mut data = vec![0_u64; BYTES / size_of::<u64>()];
    ask_for_huge_pages(&mut data);
    data.fill(1);
    let mut group = criterion.benchmark_group("limits");
    group.sample_size(10).throughput(Throughput::Bytes(BYTES as u64));
    group.bench_function(BenchmarkId::new("memory-read", threads), |bencher| {
        bencher.iter(|| {
            thread::scope(|scope| {
                for part in data.chunks(data.len().div_ceil(threads)) {
                    scope.spawn(move || black_box(read(part)));
                }
            });
        });
    });
    group.finish();
}

/// Weights lie on huge pages, too, where the system has them. Nothing of `data` may have been touched yet.
#[cfg(target_os = "linux")]
fn ask_for_huge_pages(data: &mut [u64]) {
    const HUGE: usize = 2 << 20;
    let first = data.as_ptr().align_offset(HUGE);
    let pages = &mut data[first..];
    let bytes = size_of_val(pages) / HUGE * HUGE;
    // SAFETY: the pages are this slice's, and what is in them stays as it is. A system without huge pages refuses, which is no matter.
    let _ = unsafe { madvise(NonNull::from(pages).cast(), bytes, MmapAdvise::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn ask_for_huge_pages(_: &mut [u64]) {}

criterion_group!(benches, kernels, attention, limits);
criterion_main!(benches);

//! Reading a page allocates for the page, not for its samples. A test program of its own: it counts every allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use vecscale::scrape::exposition::{Dialect, Limits, Reader};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Samples and allocations of one reading.
fn read(page: &[u8], dialect: Dialect) -> (usize, usize) {
    let before = ALLOCATIONS.get();
    let mut reader = Reader::new(page, dialect, Limits::default()).unwrap();
    let mut samples = 0;
    while let Some(sample) = reader.next_sample().unwrap() {
        samples += 1;
        // What matching does: look at names and values without a copy.
        assert!(!sample.name.is("no such series"));
        assert!(sample.labels.iter().all(|label| !label.value.is("no such value")));
    }
    (samples, ALLOCATIONS.get() - before)
}

#[test]
fn no_allocation_per_sample() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/exposition/");
    for (name, dialect, at_least) in [
        ("node_exporter-1.11.1.txt", Dialect::Text, 500),
        ("prometheus-3.5.3.txt", Dialect::Text, 500),
        ("torture.txt", Dialect::Text, 17),
        ("python-client-0.26.0.openmetrics.txt", Dialect::OpenMetrics, 20),
    ] {
        let page = std::fs::read(format!("{folder}{name}")).unwrap();
        let (samples, allocations) = read(&page, dialect);
        assert!(samples >= at_least, "{name}: only {samples} samples");
        assert!(allocations <= 4, "{name}: {allocations} allocations for {samples} samples");
    }
    assert!(
        {
            let before = ALLOCATIONS.get();
            drop(std::hint::black_box(vec![1u8; 100]));
            ALLOCATIONS.get() > before
        },
        "the counter counts"
    );
}

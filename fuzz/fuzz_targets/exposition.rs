//! Any bytes as a page, in both dialects, and as a selector: nothing panics, and what is read is borrowed soundly.
//! Good seeds: `tests/fixtures/exposition`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vecscale::scrape::exposition::{Dialect, Limits, Reader};
use vecscale::scrape::settings::Selector;

fuzz_target!(|bytes: &[u8]| {
    for dialect in [Dialect::Text, Dialect::OpenMetrics] {
        let Ok(mut reader) = Reader::new(bytes, dialect, Limits::default()) else { continue };
        while let Ok(Some(sample)) = reader.next_sample() {
            sample.identity();
            for label in sample.labels {
                assert!(label.value.is(&label.value.text()));
            }
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Selector::parse(text);
    }
});

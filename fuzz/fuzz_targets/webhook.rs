//! Any bytes as Alertmanager's notification, and as a matcher: nothing panics, and hearing a notification a second time
//! changes nothing. Good seeds: `tests/fixtures/alertmanager`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vecscale::alerts::{Book, Matchers, Notification};
use vecscale::model::{Alert, Timestamp};

fuzz_target!(|bytes: &[u8]| {
    let now = Timestamp::from_millis(1_764_000_000_000);
    if let Ok(notification) = Notification::read(bytes) {
        let mut book = Book::default();
        let mut hear = || {
            for told in &notification.alerts {
                book.hear(&"entry".into(), told, now);
            }
            Vec::<Alert>::from(book.clone())
        };
        assert_eq!(hear(), hear());
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Matchers::parse([text]);
    }
});

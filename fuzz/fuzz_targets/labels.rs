//! Any bytes are refused with a line that exists, or are labels and templates that can be used as they are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use percept_labels::{decode, parse_labels, parse_list, parse_templates, tidy};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = decode(bytes) else { return };
    let lines = text.lines().count().max(1);
    match parse_list(&text) {
        Ok(list) => {
            assert!(!list.entries.is_empty());
            for entry in &list.entries {
                assert!((1..=lines).contains(&entry.line));
                assert_eq!(entry.label.synonyms.first(), Some(&entry.label.name));
                for name in &entry.label.synonyms {
                    assert!(!name.is_empty());
                    assert_eq!(tidy(name).as_ref(), Ok(name));
                }
            }
        }
        Err(refused) => assert!(refused.line.is_none_or(|line| (1..=lines).contains(&line))),
    }
    if let Ok(labels) = parse_labels(&text) {
        assert!(labels.iter().all(|label| !label.name.is_empty()));
    }
    if let Ok(templates) = parse_templates(&text) {
        assert!(templates.iter().all(|template| template.contains("{}") || template.contains("{a}")));
    }
});

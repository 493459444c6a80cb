//! Class lists as they lie about: what each form gives, and what is refused on which line.

use percept_labels::{LabelList, decode, parse_labels, parse_list, parse_templates};
use proptest::prelude::*;

fn read(bytes: &[u8]) -> Result<LabelList, percept_labels::Refused> {
    parse_list(&decode(bytes)?)
}

fn names(list: &LabelList) -> Vec<&str> {
    let entries = list.entries.iter();
    entries.map(|entry| entry.label.name.as_str()).collect()
}

fn ids(list: &LabelList) -> Vec<&str> {
    let entries = list.entries.iter();
    entries.filter_map(|entry| entry.id.as_deref()).collect()
}

/// Texts that all mean "cat" and "dog".
#[test]
fn every_form_gives_the_same_labels() {
    let utf16: Vec<u8> = "\u{FEFF}cat\r\ndog\r\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    assert_eq!(names(&read(&utf16).unwrap()), ["cat", "dog"]);
    for text in [
        "cat\ndog\n",
        "cat\ndog",
        "\u{FEFF}cat\r\ndog\r\n",
        "cat\rdog\r",
        "cat\n\u{FEFF}dog\n",
        "ca\u{200B}t\ndog\u{200B}\n",
        "\n\ncat \n \n\tdog\t\n\n",
        "# animals\ncat # felis\n\ndog\n",
        "cat,\ndog,\n",
        "\"cat\"\n'dog'\n",
        "“cat”\n„dog“\n",
        "'cat',\n'dog',\n",
        "* cat\n* dog",
        "• cat\n• dog",
        "- cat\n- dog\n",
        "---\n- cat\n- dog\n",
        "0 cat\n1 dog\n",
        "0 cat\n1: dog\n",
        "1. cat\n2. dog\n",
        "1) cat\n2) dog\n",
        "0: cat\n1: dog\n",
        "0,cat\n1,dog\n",
        "0;cat\n1;dog\n",
        "7: cat\n12: dog\n",
        "0\tcat\n1\tdog\n",
        "id\tname\n0\tcat\n1\tdog\n",
        "id,name\n0,cat\n1,dog\n",
        ",name\n0,cat\n1,dog\n",
        "cat\t0\ndog\t1\n",
        "cat: 0\ndog: 1\n",
        "cat 0\ndog 1\n",
        "1 001.cat\n2 002.dog\n",
        "n02123045\tcat\nn02084071\tdog\n",
        "n02123045 cat\nn02084071 dog\n",
        "/m/01yrx,cat\n/m/0bt9lr,dog\n",
        r#"["cat", "dog"]"#,
        "[\"cat\",\n\t\"dog\",\n]\n",
        "['cat', 'dog']",
        "[cat, dog]",
        r#"{"0": "cat", "1": "dog"}"#,
        r#"{"1": "dog", "0": "cat"}"#,
        "{0: 'cat',\n 1: 'dog'}",
        r#"{"cat": 0, "dog": 1}"#,
        r#"{"0": ["n02123045", "cat"], "1": ["n02084071", "dog"]}"#,
        r#"{"n02123045": "cat", "n02084071": "dog"}"#,
        r#"{"id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 0, "dog": 1}}"#,
        r#"{"labels": ["cat", "dog"]}"#,
        r#"[{"id": 1, "name": "cat", "supercategory": "animal"}, {"id": 2, "name": "dog"}]"#,
        r#"{"images": [], "categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}]}"#,
        "path: ../coco8 # root\ntrain: images/train\nnc: 2\nnames:\n  0: cat\n  1: dog # a dog\n",
        "names: ['cat', 'dog']\nnc: 2\n",
        "# data\nnames:\n- cat\n- dog\ndownload: |\n  bash a.sh\n",
        "classes:\n  - cat\n  - dog\n",
        "# \u{251C}\u{2500}\u{2500} yolov5 \u{1F680}\ntrain: D:\\data\\images  \n#path: x\n\n# Classes\nnc: 2  # number\nnames: ['cat', 'dog']  # names\n",
    ] {
        match read(text.as_bytes()) {
            Ok(list) => assert_eq!(names(&list), ["cat", "dog"], "{text}"),
            Err(refused) => panic!("{text}\n{refused}"),
        }
    }
}

#[test]
fn what_may_be_meant_in_two_ways_is_refused_with_its_line() {
    for (text, line, reason) in [
        ("", None, "none given"),
        ("# nothing\n\n", None, "none given"),
        ("[]", None, "none given"),
        ("{}", None, "none given"),
        ("cat\n#2 pencil\n", Some(2), "a comment?"),
        ("cat\nDog\n\ndog\n", Some(4), "twice, first on line 2"),
        (
            "cafe\u{301}\ncaf\u{E9}\n",
            Some(2),
            "twice, first on line 1",
        ),
        ("cat\u{200B}\ncat\n", Some(2), "twice"),
        ("cat\n,dog\n", Some(2), "empty name"),
        ("cat\ndog,,hound\n", Some(2), "empty name"),
        ("cat\n\"dog\n", Some(2), "not closed"),
        ("cat\n\"dog\" hound\n", Some(2), "follows the quote"),
        ("cat\n1: dog\n", Some(2), "line 1 does not"),
        ("0: cat\ndog\n", Some(1), "line 2 does not"),
        ("0 cat\n1 dog\nbird\n", Some(1), "line 3 does not"),
        (
            "2 door car\n4 door car\n",
            Some(1),
            "id or part of the name",
        ),
        ("0: cat\n0: dog\n", Some(2), "the id 0 is there twice"),
        ("01: cat\n1: dog\n", Some(2), "twice"),
        ("cat\nn02084071 dog\n", Some(2), "begins with an id"),
        ("cat\nn02084071\n", Some(2), "id without a name"),
        ("cat\tfelis\ndog\tcanis\n", Some(1), "two columns of words"),
        ("0\tcat\n1\tdog\tcanis\n", Some(2), "has 3 columns"),
        ("cat\n17\n", Some(2), "is a number"),
        ("cat\n30%\n", Some(2), "is a number"),
        ("cat, 0.5\ndog, 0.5\n", Some(1), "is a number"),
        ("name\ncat\ndog\n", Some(1), "heading; remove line 1"),
        ("cat;dog;bird\n", Some(1), "commas"),
        ("cat|dog\n", Some(1), "commas"),
        ("animal: cat\n", Some(1), "colon"),
        ("cat:128,0,0::\n", Some(1), "before the first colon"),
        ("a photo of {}\n", Some(1), "--templates"),
        (
            "item {\n  name: 'cat'\n}\n",
            Some(1),
            "names alone, one a line",
        ),
        ("<annotation>\n", Some(1), "XML"),
        ("/a/airfield 0\n/b/bar 1\n", Some(1), "path"),
        ("https://example.org/cat\n", Some(1), "address"),
        ("cat\n---\n", Some(2), "no letters"),
        ("cat . dog .\n", Some(1), "points"),
        ("a cat. a dog.\n", Some(1), "points"),
        ("- cat\ndog\n", Some(1), "bullet"),
        ("[\"cat\",\n \"Cat\"]", Some(2), "twice, first on line 1"),
        ("[\"cat\",\n 3]", Some(2), "`3` is no label"),
        ("[\"cat\",\n null]", Some(2), "`null` is no label"),
        ("[\"cat\",\n [\"\"]]", Some(2), "empty name"),
        ("[\"cat\"", Some(1), ""),
        ("[\"cat\"] [\"dog\"]", Some(1), ""),
        (
            "{\"image\": \"a.jpg\", \"size\": 3}",
            Some(1),
            "object of image, size",
        ),
        (
            "{\"0\": \"cat\",\n\"0\": \"dog\"}",
            Some(2),
            "the id 0 is there twice",
        ),
        ("[{\"id\": 1}]", Some(1), "without a `name`"),
        (
            "[{\"name\": \"cat\",\n\"synonyms\": \"kitty\"}]",
            Some(2),
            "`synonyms` is no list",
        ),
        (
            "[{\"name\": \"cat\", \"synonyms\": [\"kitty\",\n3]}]",
            Some(2),
            "holds something that is no text",
        ),
        (
            "names:\n- name: cat\n  synonyms: [kitty, [puss]]\n",
            Some(3),
            "holds something that is no text",
        ),
        (
            "[{\"name\": \"cat\",\n\"id\": \"first\"}]",
            Some(2),
            "the id is `first`, which is no index of a class",
        ),
        (
            "[{\"name\": \"cat\",\n\"id\": -1}]",
            Some(2),
            "the id is `-1`",
        ),
        (
            "[{\"name\": \"cat\", \"id\":\n[1]}]",
            Some(2),
            "the id is a list or object",
        ),
        ("names:\n  0: cat\n  1:\n", Some(3), "nothing is no label"),
        (
            "nc: 3\nnames: [cat, dog]\n",
            Some(1),
            "nc is 3, but there are 2 names",
        ),
        ("names: [cat]\nnames: [dog]\n", Some(2), ""),
        ("a: &a [cat]\nnames: *a\n", Some(2), "alias"),
    ] {
        let refused = match read(text.as_bytes()) {
            Err(refused) => refused,
            Ok(list) => panic!("{text}: {list:?}"),
        };
        assert_eq!(refused.line, line, "{text}: {refused}");
        assert!(refused.reason.contains(reason), "{text}: {refused}");
    }
}

#[test]
fn objects_of_classes_have_synonyms_and_ids() {
    let text =
        br#"[{"id": 0, "name": "cat", "synonyms": ["kitty", "puss"]}, {"id": 1, "name": "dog",
        "synonyms": null}, {"id": 2, "name": "cow", "synonyms": []}]"#;
    let list = read(text).unwrap();
    assert_eq!(ids(&list), ["0", "1", "2"]);
    assert_eq!(list.entries[0].label.synonyms, ["cat", "kitty", "puss"]);
    assert_eq!(list.entries[1].label.synonyms, ["dog"]);
    let text = br#"[{"id": "/m/01yrx", "name": "cat"}, {"id": "n02084071", "name": "dog"}]"#;
    assert_eq!(ids(&read(text).unwrap()), ["/m/01yrx", "n02084071"]);
    assert!(ids(&read(br#"[{"id": null, "name": "cat"}]"#).unwrap()).is_empty());
}

#[test]
fn synonyms_ids_and_order_are_kept() {
    let list =
        read(b"n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\n").unwrap();
    assert_eq!(ids(&list), ["n01440764", "n01443537"]);
    assert_eq!(list.entries[0].label.synonyms, ["tench", "Tinca tinca"]);
    let list = read(b"{0: 'tench, Tinca tinca',\n 1: \"snail's shell\"}").unwrap();
    assert_eq!(list.entries[0].label.synonyms, ["tench", "Tinca tinca"]);
    assert_eq!(names(&list), ["tench", "snail's shell"]);
    // As sorted by their spelling, which is not their order.
    let list = read(br#"{"0": "a0", "1": "a1", "10": "a10", "2": "a2"}"#).unwrap();
    assert_eq!(names(&list), ["a0", "a1", "a2", "a10"]);
    assert_eq!(list.notes.len(), 1);
    // Quotes make anything a name.
    let list = read(b"\"cat, domestic\"\n\"#2 pencil\"\n\"2: door\"\n\"17\"\n\"name\"\n").unwrap();
    assert_eq!(
        names(&list),
        ["cat, domestic", "#2 pencil", "2: door", "17", "name"]
    );
    // Numbers that are part of names.
    let list = read("747 jet\ntruck\nDC-3\nR2-D2\nFormula 1\n3D printer".as_bytes()).unwrap();
    assert_eq!(list.entries.len(), 6);
    assert!(ids(&list).is_empty());
    let list = read(br#"["\ud83d\ude00 face", "caf\u00e9", "a\/b"]"#).unwrap();
    assert_eq!(names(&list), ["😀 face", "café", "a/b"]);
    let list = read(b"cat\n\n\ndog\n\n").unwrap();
    assert_eq!(list.blank_lines, [2, 3]);
    let list = read(b"sofa, couch, couch\n").unwrap();
    assert_eq!(list.entries[0].label.synonyms, ["sofa", "couch"]);
    assert!(list.notes[0].contains("one line is one class"));
    // YAML 1.1 would make booleans of these.
    assert_eq!(
        names(&read(b"names: [no, Yes, on]").unwrap()),
        ["no", "Yes", "on"]
    );
    let list = read(b"St. Bernard\nMr. Potato Head\n").unwrap();
    assert_eq!(list.entries.len(), 2);
    let long = "x".repeat(10_000);
    assert_eq!(names(&read(long.as_bytes()).unwrap()), [long.as_str()]);
}

#[test]
fn lists_of_the_command_line_are_understood_or_refused() {
    let names = |list: &str| -> Vec<String> {
        let labels = parse_labels(list).unwrap_or_else(|refused| panic!("{list}: {refused}"));
        labels.into_iter().map(|label| label.name).collect()
    };
    for list in [
        "cat, dog",
        "cat,dog,",
        "[\"cat\",\"dog\"]",
        "['cat', 'dog']",
        "[cat, dog]",
        "\"cat\", \"dog\"",
        "\"cat, dog\"",
        "'cat, dog'",
        "cat，dog",
        "\u{FEFF}cat\ndog\n",
        "{\"0\": \"cat\", \"1\": \"dog\"}",
    ] {
        assert_eq!(names(list), ["cat", "dog"], "{list}");
    }
    assert_eq!(names("\"cat, domestic\", dog"), ["cat, domestic", "dog"]);
    assert_eq!(names("[\"cat, domestic\"]"), ["cat, domestic"]);
    assert_eq!(names("7, 8"), ["7", "8"]);
    for (list, reason) in [
        ("", "none given"),
        (" , ", "none given"),
        ("dog, Dog", "twice, as number 1 and number 2"),
        ("dog,,cat", "number 2 is empty"),
        ("cat; dog", "commas"),
        ("cat. dog .", "points"),
        ("a cat. a remote control.", "points"),
        ("'cat, dog", "not closed"),
        ("sofa, couch\nchair", "which is meant?"),
        ("[\"cat\"", ""),
    ] {
        let refused = parse_labels(list).unwrap_err().to_string();
        assert!(refused.contains(reason), "{list}: {refused}");
    }
}

proptest! {
    /// Any bytes are refused or are labels that a bank can take, and read the same when written plainly.
    #[test]
    fn any_bytes_are_labels_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        check(&bytes);
    }

    /// Likewise texts made of what the forms are made of.
    #[test]
    fn any_text_is_labels_or_refused(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "cat", "dog", "0", "1", "17", "n02084071", " ", "\t", "\n", "\r", ",", ":", ";", "\"", "'",
                "[", "]", "{", "}", "- ", "#", "names:", "id", "\\", "\\ud83d", "é", "\u{301}", "\u{FEFF}",
                "\u{200D}", "{}", "{a}", "&a", "*a", "|", ">", "%", "---",
            ]),
            0..40,
        )
    ) {
        check(parts.concat().as_bytes());
    }

    /// Whatever names are, a JSON list of them gives them back.
    #[test]
    fn a_json_list_gives_its_names(names in prop::collection::btree_set("[a-zé]{1,8}( [a-z]{1,5})?", 1..20)) {
        let names: Vec<String> = names.into_iter().collect();
        let list: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        let labels = parse_labels(&format!("[{}]", list.join(", "))).unwrap();
        let read: Vec<String> = labels.into_iter().map(|label| label.name).collect();
        prop_assert_eq!(&read, &names);
        let lines: Vec<String> = names.iter().map(|name| format!("\"{name}\"\r\n")).collect();
        let list = parse_list(&decode(lines.concat().as_bytes()).unwrap()).unwrap();
        let read: Vec<String> = list.into_labels().into_iter().map(|label| label.name).collect();
        prop_assert_eq!(read, names);
    }
}

fn check(bytes: &[u8]) {
    let Ok(text) = decode(bytes) else { return };
    if let Ok(list) = parse_list(&text) {
        assert!(!list.entries.is_empty());
        let lines = text.lines().count();
        let mut seen = std::collections::HashSet::new();
        for entry in &list.entries {
            assert!((1..=lines).contains(&entry.line), "{entry:?}");
            assert_eq!(entry.label.synonyms.first(), Some(&entry.label.name));
            for name in &entry.label.synonyms {
                assert_eq!(percept_labels::tidy(name).as_ref(), Ok(name));
                assert!(!name.is_empty());
            }
            assert!(seen.insert(entry.label.name.to_lowercase()), "{entry:?}");
        }
    }
    if let Ok(labels) = parse_labels(&text) {
        assert!(labels.iter().all(|label| !label.name.is_empty()));
    }
    if let Ok(templates) = parse_templates(&text) {
        let has_place = |t: &String| t.contains("{}") || t.contains("{a}");
        assert!(!templates.is_empty() && templates.iter().all(has_place));
    }
}

#[test]
fn synonyms_behind_commas_are_told() {
    let list = read(b"cat,red\ndog,blue\nbird\nsofa, couch\n").unwrap();
    assert_eq!(names(&list), ["cat", "dog", "bird", "sofa"]);
    let note = &list.notes[0];
    assert!(note.starts_with("3 lines have synonyms"), "{note}");
    assert!(note.contains("\"cat = red\", \"dog = blue\", …"), "{note}");
    assert!(read(b"cat\ndog\n").unwrap().notes.is_empty());
}

#[test]
fn a_name_of_two_classes_is_told() {
    let list = read(b"crane bird, crane\nhoist, Crane\ncat\n").unwrap();
    let note = list.notes.last().unwrap();
    assert!(
        note.contains("\"Crane\" is a name of \"crane bird\" and of \"hoist\""),
        "{note}"
    );
    // One class may repeat itself.
    let list = read(b"sofa, Sofa\ncat\n").unwrap();
    assert!(list.notes.iter().all(|note| !note.contains("is a name of")));
}

#[test]
fn documents_of_programs_are_named() {
    for (bytes, what) in [
        (
            &b"PK\x03\x04\x14\0..xl/workbook.xml"[..],
            "an Excel workbook; save it as CSV UTF-8",
        ),
        (b"PK\x03\x04\x14\0..word/document.xml", "a Word document"),
        (
            b"PK\x03\x04mimetypeapplication/vnd.oasis.opendocument.spreadsheet",
            "OpenDocument",
        ),
        (b"PK\x03\x04\x14\0names.txt", "a ZIP archive"),
        (b"\xD0\xCF\x11\xE0\xA1\xB1", "older Office"),
        (b"\x1F\x8B\x08\0", "gzip"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"{\\rtf1 cat}", "rich text"),
    ] {
        let reason = read(bytes).unwrap_err().reason;
        assert!(reason.contains(what), "{reason}");
    }
}

#[test]
fn joiners_that_join_nothing_are_dropped_at_once() {
    for (name, tidied) in [
        ("\u{3b1}\u{200c}\u{200c}\u{200c} ", "\u{3b1}"),
        ("\u{3b1}\u{200d}\u{200b}a", "\u{3b1}a"),
        ("e\u{200b}\u{301}", "\u{e9}"),
        (
            "\u{645}\u{6cc}\u{200c}\u{62e}",
            "\u{645}\u{6cc}\u{200c}\u{62e}",
        ),
    ] {
        assert_eq!(
            percept_labels::tidy(name).as_deref(),
            Ok(tidied),
            "{name:?}"
        );
        assert_eq!(percept_labels::tidy(tidied).as_deref(), Ok(tidied));
    }
}

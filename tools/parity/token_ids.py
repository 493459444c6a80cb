"""Write the token ids of 200 difficult strings under T5's and MiniLM's own tokenizers.

    python token_ids.py --t5 tokenizer.json --minilm DIR OUT.json

T5: `tokenizer.json` as it stands, through transformers, 256 ids, the closing </s> (1) included. (The
T5Tokenizer class of transformers 5 rebuilds the pre-tokenizer and differs on U+0085 and on `a</s>b`.)
MiniLM: the folder through sentence-transformers, 256 ids, [CLS] and [SEP] included. No padding.
(Not called tokenizers.py: a script of that name hides the `tokenizers` package from its neighbours.)
"""
import argparse
import json
import os
import pathlib

os.environ["HF_HUB_OFFLINE"] = "1"

from sentence_transformers import SentenceTransformer
from transformers import PreTrainedTokenizerFast, logging

logging.disable_progress_bar()

COUNT = 200
MAX_LENGTH = 256
VOC = (
    "background,aeroplane,bicycle,bird,boat,bottle,bus,car,cat,chair,cow,table,dog,horse,motorbike,person,"
    "potted plant,sheep,sofa,train,television monitor"
).split(",")
TEMPLATES = (
    "itap of a {}.", "a bad photo of the {}.", "a origami {}.", "a photo of the large {}.",
    "a {} in a video game.", "art of the {}.", "a photo of the small {}.", "a photo of many {}.", "a photo of {}s.",
)  # fmt: skip


def strings() -> list:
    """200 strings, the same in every run."""
    out = [f"a photo of {'an' if c[0] in 'aeiou' else 'a'} {c}" for c in VOC]
    out += [t.format(VOC[i + 1]) for i, t in enumerate(TEMPLATES)]
    # Spaces, line ends, control and format characters.
    out += ["", " ", "   ", "\t", "\n", " \t\n ", "\u00a0", "\u3000", "\u200b", " dog", "dog ", "  two  spaces  ",
            "line\nbreak", "tab\tstop", "carriage\r\nreturn", "nul\u0000byte", "bell\u0007", "del\u007f", "\ufeffbom",
            "zero\u200bwidth", "soft\u00adhyphen", "word\u2060joiner", "lrm\u200emark", "line\u2028separator",
            "nbsp\u00a0between", "ideographic\u3000space", "private\ue000use", "noncharacter\uffff",
            "replacement \ufffd", "vertical\u000btab", "form\u000cfeed", "next\u0085line"]  # fmt: skip
    # Case, punctuation, numbers, markup.
    out += ["DOG", "Dog", "dOg", "A PHOTO OF A DOG", "don't", "it’s", "“quoted”", "'single'", "semi;colon", "a/b",
            "well-known", "em—dash", "en–dash", "ellipsis…", "...", "!!!", "?!", "(brackets) [square] {curly}", "a_b_c",
            "C++", "C#", "50% off", "$3.99", "€12,50", "£5", "¥1000", "#hashtag", "@mention", "user@example.org",
            "https://example.org/a?b=c&d=e#f", "C:\\temp\\file.txt", "/usr/bin/env", "3.14159", "1,234,567", "1e-5",
            "0x1F", "007", "2024-02-29", "12:34:56", "+44 20 7946 0000", "½ cup", "10⁻³", "H₂O", "x²+y²", "№ 5",
            "<b>bold</b> &amp; <br/>", "&lt;p&gt;", "<!-- comment -->", "</s>", "<pad>", "<unk>", "<extra_id_0>",
            "[CLS]", "[SEP] [MASK]", "[unk]", "a</s>b", "{\"json\": [1, 2]}", "SELECT * FROM t;", "a=b+c*d", "~^`|"]  # fmt: skip
    # Accents, composition, compatibility forms.
    out += ["café", "cafe\u0301", "naïve", "Ångström", "A\u030angstro\u0308m", "ñandú", "Zażółć gęślą jaźń",
            "Příliš žluťoučký", "İstanbul", "ıslak", "Straße", "ẞ", "ﬁne ﬂow oﬃce", "ＦＵＬＬ ｗｉｄｔｈ １２３",
            "ｶﾞｷﾞｸﾞ", "①②③", "㎏ ㎡", "ℝℂℕ", "𝓭𝓸𝓰", "ⅷ Ⅻ", "™ © ®", "Å K Ω", "Ǆ ǆ ǅ", "e\u0301\u0323\u0302", "\u0301",
            "Z̷̡a̵l̶g̸o̴", "œuvre", "Æsir", "ŉ", "ſ", "a\u0338", "각", "가"]  # fmt: skip
    # Scripts.
    out += ["фотография собаки", "φωτογραφία σκύλου", "ΣΊΣΥΦΟΣ", "תמונה של כלב", "صورة لكلب", "كِتَاب", "کتاب",
            "कुत्ते की तस्वीर", "কুকুরের ছবি", "நாயின் படம்", "รูปถ่ายสุนัข", "ຮູບ", "ခွေးဓာတ်ပုံ", "សត្វឆ្កែ", "ძაღლის ფოტო",
            "շան լուսանկար", "ውሻ", "犬の写真", "イヌ", "狗的照片", "一隻狗", "개 사진", "ảnh một con chó",
            "dog 犬 собака كلب", "𠮷野家", "ᚠᚢᚦ", "𐍈", "ꦲ"]  # fmt: skip
    # Emoji.
    out += ["🐶", "a photo of a 🐕", "👨‍👩‍👧‍👦", "👍🏽", "🇫🇷🇯🇵", "❤️", "❤", "🏳️‍🌈", "1️⃣", "☃", "🫠", "🧑‍🚀 on 🌍"]
    # Long.
    out += ["dog " * 300, "supercalifragilisticexpialidocious" * 20, "x" * 1000, "a photo of a dog, " * 60]
    while len(out) < COUNT:
        out.append(f"{TEMPLATES[len(out) % 9].format(VOC[len(out) % 21])} #{len(out)}")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--t5", type=pathlib.Path, required=True, help="T5's tokenizer.json")
    parser.add_argument("--minilm", type=pathlib.Path, required=True, help="all-MiniLM-L6-v2 folder")
    args = parser.parse_args()
    t5 = PreTrainedTokenizerFast(tokenizer_file=str(args.t5), pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    minilm = SentenceTransformer(str(args.minilm), device="cpu")
    texts = strings()
    assert len(texts) == len(set(texts)) == COUNT
    rows = []
    for text in texts:
        ids = {"text": text, "t5": t5(text, truncation=True, max_length=MAX_LENGTH)["input_ids"]}
        ids["minilm"] = minilm.preprocess([text])["input_ids"][0].tolist()
        assert len(ids["t5"]) <= MAX_LENGTH and len(ids["minilm"]) <= MAX_LENGTH
        rows.append(ids)
    assert next(r for r in rows if r["text"] == "a photo of a dog")["t5"] == [3, 9, 1202, 13, 3, 9, 1782, 1]
    lines = ",\n".join(json.dumps(r, separators=(",", ":")) for r in rows)  # ASCII: \u escapes
    args.out.write_text(f'{{"max_length":{MAX_LENGTH},"strings":[\n{lines}\n]}}\n')
    print(f"{args.out.name}: {len(rows)} strings, {args.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()

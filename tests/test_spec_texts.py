"""Specs that are texts: the files of an agent, constitutions, and Markdown in several languages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from spec_files import SOUL, read_any, read_text, talks, texts

from moltlm.data.errors import BadInput

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


IDENTITY = "# IDENTITY.md\n\n- **Name:** Mo\n- **Creature:** a small owl\n- **Vibe:** calm\n"


@pytest.mark.parametrize("heading", ["Core Truths", "How I work"])
def test_a_bullet_with_a_bold_label_is_a_trait(tmp_path: Path, heading: str) -> None:
    bullets = "- **Be direct:** Say what you mean.\n- **Be kind**: Always.\n- **Name:** Bo\n"
    (tmp_path / "SOUL.md").write_text(f"# SOUL.md\n\n## {heading}\n\n{bullets}\n## Other\n\nA line of text.\n")
    result = read_any(tmp_path / "SOUL.md")
    assert [trait.text for trait in result.traits] == ["Be direct: Say what you mean.", "Be kind: Always."]
    assert result.name == "Bo" and result.facts["name"] == "Bo"


def test_the_files_of_an_agent(tmp_path: Path) -> None:
    (tmp_path / "SOUL.md").write_text(SOUL)
    (tmp_path / "IDENTITY.md").write_text(IDENTITY)
    result = read_any(tmp_path)
    assert result.name == "Mo" and result.facts["creature"] == "a small owl"
    assert "Be genuinely helpful. Skip the filler and just help." in [trait.text for trait in result.traits]
    assert "Have opinions." in [trait.text for trait in result.traits]
    assert result.boundaries == ["Private things stay private."]
    assert result.voice == ["Dry, and short when it can be.", "calm"]
    assert SOUL.strip() in result.system_prompt and IDENTITY.strip() in result.system_prompt
    assert read_any(tmp_path / "SOUL.md", "Jo").name == "Jo"


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(["I am calm.", "I am calm.", "I joke."]),
        '{"trait": "I am calm.", "questions": ["why?", "why?"]}\n\n{"trait": "I am calm."}\n{"text": "I joke."}',
        json.dumps([{"principle": "I am calm."}, {"statement": "I am calm."}, {"trait": "I joke."}]),
    ],
)
def test_a_constitution(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.json").write_text(text)
    result = read_any(tmp_path / "mine.json")
    assert [trait.id for trait in result.traits] == ["calm", "calm_2", "joke"]
    assert result.name == "mine"
    assert result.traits[0].questions in ([], ["why?"])


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data sets do not lie beside this checkout")
@pytest.mark.parametrize("name", ["oct_handwritten", "oct_constitutions"])
def test_the_constitutions_of_open_character_training(name: str) -> None:
    path = DATA / name / "train.jsonl"
    with pytest.raises(BadInput, match="11 personas") as result:
        read_any(path)
    names = result.value.fix.rstrip(".").split(": ")[1].split(", ")
    rows = [json.loads(line) for line in path.read_text().split("\n") if line.strip()]
    loaded = [read_any(path, each) for each in names]
    assert sum(len(spec.traits) for spec in loaded) == len(rows) == 115
    assert all(len(trait.questions) >= 5 for spec in loaded for trait in spec.traits)


LANGUAGES = [
    ("de", "Persönlichkeit", "Grenzen", "Tonfall", "Werte", "Ich habe Geduld.", "Lüge nie.", "Kurz.", "Ehrlichkeit."),
    (
        "de",
        "Wer du bist",
        "Was du niemals tust",
        "Sprachstil",
        "Überzeugungen",
        "Ich habe Geduld.",
        "Lügen.",
        "Kurz.",
        "Treue.",
    ),
    ("es", "Carácter", "Límites", "Tono", "Valores", "Soy paciente.", "Nunca miento.", "Breve.", "La verdad."),
    (
        "fr",
        "Personnalité",
        "Limites",
        "Ton et style",
        "Valeurs",
        "Je suis calme.",
        "Ne mens jamais.",
        "Bref.",
        "La vérité.",
    ),
    ("pt", "Quem você é", "Limites", "Tom de voz", "Valores", "Sou calma.", "Nunca minto.", "Curto.", "A verdade."),
    ("it", "Personalità", "Confini", "Tono", "Valori", "Sono calma.", "Non mento mai.", "Breve.", "La verità."),
    ("zh", "性格特点", "底线", "说话风格", "价值观", "我有耐心。", "不泄露隐私。", "简短。", "诚实。"),
    ("ja", "性格", "禁止事項", "口調", "価値観", "私は気長です。", "嘘をつかない。", "短く。", "誠実さ。"),
    (
        "en",
        "Who You Are",
        "What I never do",
        "How I Talk",
        "What I Believe",
        "I am slow.",
        "Lying.",
        "Short.",
        "Truth.",
    ),
    ("ru", "Личность", "Ограничения", "Голос", "Ценности", "Я терпелив.", "Не лгу.", "Кратко.", "Правда."),
    ("it", "Carattere", "Limiti", "Voce", "Valori", "Sono calma.", "Non mento mai.", "Breve.", "La verità."),
    ("pl", "Osobowość", "Granice", "Głos", "Wartości", "Mam czas.", "Nie kłamię.", "Krótko.", "Prawda."),
    ("sv", "Personlighet", "Gränser", "Röst", "Värderingar", "Jag är lugn.", "Ljug aldrig.", "Kort.", "Sanning."),
    ("ko", "성격", "금지", "말투", "가치", "나는 느긋하다.", "거짓말하지 않는다.", "짧게.", "진실."),
    ("ar", "الشخصية", "الحدود", "الأسلوب", "القيم", "أنا هادئ.", "لا أكذب.", "باختصار.", "الصدق."),
    ("hi", "व्यक्तित्व", "सीमाएँ", "शैली", "मूल्य", "मैं शांत हूँ।", "झूठ नहीं।", "छोटे वाक्य।", "सच।"),
    ("da", "Personlighed", "Grænser", "Tone", "Værdier", "Jeg er rolig.", "Lyv aldrig.", "Kort.", "Sandhed."),
    ("fi", "Luonne", "Rajat", "Sävy", "Arvot", "Olen rauhallinen.", "En valehtele.", "Lyhyesti.", "Totuus."),
    ("vi", "Tính cách", "Giới hạn", "Giọng điệu", "Giá trị", "Tôi kiên nhẫn.", "Không nói dối.", "Ngắn.", "Thật."),
    ("el", "Προσωπικότητα", "Όρια", "Τόνος", "Αξίες", "Είμαι ήρεμη.", "Δεν λέω ψέματα.", "Σύντομα.", "Αλήθεια."),
    ("ru", "Характер", "Границы", "Стиль речи", "Ценности", "Я терпелив.", "Не лгу.", "Кратко.", "Правда."),
]


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda row: row[1])
@pytest.mark.parametrize("style", ["atx", "setext", "bold", "table"])
def test_headings_in_other_languages(tmp_path: Path, language: tuple[str, ...], style: str) -> None:
    heads, items = language[1:5], language[5:]
    parts = ["# Vex\n"]
    for head, item in zip(heads, items, strict=True):
        underline = "\n" + "-" * 12 if style == "setext" else ""
        title = {"atx": f"## {head}", "setext": head, "bold": f"**{head}**", "table": f"## {head}"}[style]
        parts.append(f"{title}{underline}\n\n" + (f"| {item} |\n|---|\n" if style == "no" else f"- {item}\n"))
    spec = read_text(tmp_path, "\n".join(parts)).spec
    assert spec.name == "Vex"
    assert [texts(spec), spec.boundaries, spec.voice, spec.values] == [[item] for item in items]


def test_blocks_of_html_are_lines_and_no_other_language(tmp_path: Path) -> None:
    text = "<h1>Vex</h1><p>Vex mends clocks.</p><img src='http://x/y.png'>"
    spec = read_text(tmp_path, json.dumps({"name": "Vex", "description": text, "first_mes": "Hm?"}), "card.json").spec
    assert spec.system_prompt == "You are Vex.\n\nVex\n\nVex mends clocks."


def test_tables_front_matter_code_and_comments(tmp_path: Path) -> None:
    text = """---
name: Vex
description: A clockmaker.
tools: [Read]
---
<!-- - a comment -->

| Field | Value |
|---|---|
| Creature | fox |

Trait | How it shows
--- | ---
Patience | never hurries
Dryness | jokes [flatly](http://x)

```yaml
- no: trait
```

## Limits

- [x] No lies.
"""
    reading = read_text(tmp_path, text, "a.md")
    spec = reading.spec
    assert spec.name == "Vex" and spec.summary == "A clockmaker." and spec.facts["creature"] == "fox"
    assert texts(spec) == ["Patience: never hurries", "Dryness: jokes flatly"] and spec.boundaries == ["No lies."]
    assert "a comment" not in spec.system_prompt and "tools:" not in spec.system_prompt
    assert reading.left_out["comment"] == 1 and reading.left_out["tools in the front matter"] == 1


def test_labels_in_markdown_are_no_yaml(tmp_path: Path) -> None:
    spec = read_text(tmp_path, "# Vex\n\nA clockmaker.\n\ntraits: patient, dry\nvoice: short\nnever: lie\n").spec
    assert texts(spec) == ["I am patient.", "I am dry."] and spec.voice == ["short"] and spec.boundaries == ["lie"]
    assert spec.name == "Vex" and spec.summary == "A clockmaker."


def test_unlimited_is_no_limit(tmp_path: Path) -> None:
    spec = read_text(
        tmp_path,
        "# Vex\n\n## Personality\n\n### Unlimited curiosity\n\n- I ask.\n\n## Limits\n\n### Privacy\n\n- Secrets.\n",
    ).spec
    assert texts(spec) == ["I ask."] and spec.boundaries == ["Secrets."]


def test_conversations_in_a_soul_are_dialogues(tmp_path: Path) -> None:
    spec = read_text(
        tmp_path, "# Vex\n\n## Traits\n\n- I am slow.\n\n## Examples\n\n**User:** Late?\n**Vex:** Always.\n"
    ).spec
    assert talks(spec) == [[("user", "Late?"), ("assistant", "Always.")]] and texts(spec) == ["I am slow."]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("# SOUL.md - Vex\n\n- I am slow.", "Vex"),
        ("# Vex, clockmaker of ninety\n\n- I am slow.", "Vex"),
        ("# Vex — who I am\n\n- I am slow.", "Vex"),
        ("# Tom\n\n- I am slow.", "Tom"),
        ("# Vex Tallow's Soul\n\n- I am slow.", "Vex Tallow"),
        ("# System Prompt\n\nYou are Vex Tallow, a clockmaker.", "Vex Tallow"),
        ("# Seele\n\nDu bist **Vex**, Uhrmacherin.", "Vex"),
        ("# Wer du bist\n\nName: Vex\n\n- Ich bin langsam.", "Vex"),
        ("你是小龙，一位钟表匠。", "小龙"),
        ("- **Nombre:** Vex (ella)\n- Soy lenta.", "Vex"),
    ],
)
def test_the_name_in_a_soul(tmp_path: Path, text: str, name: str) -> None:
    assert read_text(tmp_path, text, "SOUL.md").spec.name == name


@pytest.mark.parametrize(
    "text",
    [
        "- I am slow.",
        "# SOUL.md - Who You Are\n\nYou are a clockmaker.",
        "# Personality\n\n- slow",
        "Du bist Uhrmacher",
    ],
)
def test_a_soul_without_a_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput, match="does not say what the persona is called") as error:
        read_text(tmp_path, text, "SOUL.md")
    assert f"--from {tmp_path / 'SOUL.md'} --name NAME" in error.value.fix
    assert read_text(tmp_path, text, "SOUL.md", "Mo").spec.name == "Mo"

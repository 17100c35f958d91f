"""What a heading or a label says its text is, in thirteen languages, and what an unfilled template looks like."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

KINDS = ("boundaries", "voice", "values", "examples", "background", "traits")
"""What a section holds. The first kind with a word in the heading is taken: "How I never talk" is a boundary."""

WORDS = {
    "boundaries": (
        "bound limits limit limitation never dont avoid forbidden prohibit refus red_line hard_line hard_no wont taboo "
        "grenze grenzen tabu tabus niemals verbot verboten rote_linie "
        "limite prohibi nunca jamas no_hacer lineas_rojas "
        "interdi jamais ne_pas lignes_rouges "
        "proibi nao_fazer linhas_vermelhas fronteira "
        "confini confine divieti vietat mai non_fare linee_rosse "
        "grenzen nooit verboden granice nigdy zakaz границ никогда запрет нельзя предел sinir asla yasak"
    ),
    "voice": (
        "voice vibe tone style speak speech talk communicat sound manner diction "
        "stimme ton tonfall stil sprache sprech sprichst rede redest ausdruck kommunikation "
        "voz tono estilo habla hablas hablo forma_de_hablar comunicacion "
        "voix ton style parle parles parler langage communication "
        "tom fala falas falo jeito_de_falar comunicacao "
        "voce tono stile parli parlo parlare modo_di_parlare comunicazione "
        "stem toon stijl spreek praat glos styl mowi голос тон стиль речь говор ses uslup konusma"
    ),
    "values": (
        "value values belie convicti werte wert ueberzeugung uberzeugung glaube valores valor creencia creo_en conviccion "
        "valeurs valeur croyance convictions crenca convicc valori credo credenze convinzion "
        "waarden overtuiging wartosc ценност убежд degerler"
    ),
    "examples": (
        "example dialogue conversation sample beispiel dialog gespraech gesprach ejemplo dialogo conversacion exemple "
        "exemplo conversa esempi esempio conversazion voorbeeld przyklad пример диалог ornek"
    ),
    "background": (
        "background backstory biograph history lore tools tool skills memory setup install changelog license usage "
        "hintergrund geschichte vergangenheit lebenslauf werkzeug trasfondo historia biografia herramientas passe "
        "histoire contexte outils historico ferramentas storia passato strumenti achtergrond geschiedenis tlo предыстория "
        "история инструмент gecmis"
    ),
    "traits": (
        "trait core truth truths personalit who_you who_i character principle continuity quality qualities nature temperament "
        "attributes "
        "personlichkeit persoenlichkeit charakter eigenschaft wesen wesenszug wer_du wer_ich kern prinzip grundsatz grundsaetz "
        "personalidad caracter rasgo quien_eres quien_soy principio esencia naturaleza "
        "personnalite caractere qui_tu qui_je qui_es principe essence "
        "personalidade traco quem_voce quem_sou quem_es essencia natureza "
        "personalita carattere tratti tratto chi_sei chi_sono principi essenza natura "
        "persoonlijkheid karakter eigenschap wie_je wie_ik osobowosc cechy характер личност черт kisilik karakter ozellik"
    ),
}  # fmt: skip
"""Beginnings of words, without accents; `_` is a space."""
SIGNS = {
    "boundaries": "边界 邊界 界限 底线 底線 禁止 禁忌 不要 绝不 絕不 限制 境界 しない してはいけない やらない 禁則 限界 経계 경계 금지 한계",
    "voice": "语气 語氣 语调 語調 风格 風格 说话 說話 声音 聲音 口吻 口調 話し方 語り口 トーン スタイル 文体 喋り方 말투 어조 목소리 스타일",
    "values": "价值观 價值觀 价值 信念 信仰 価値観 信条 大切に 가치 신념",
    "examples": "示例 对话 對話 例子 例文 会話例 対話 예시 대화",
    "background": "背景 经历 經歷 历史 工具 记忆 経歴 生い立ち 過去 記憶 배경 도구",
    "traits": "性格 个性 個性 人格 特质 特質 特点 特點 特征 核心 原则 原則 本质 人柄 特徴 気質 本質 あなたは誰 私は誰 你是谁 我是谁 성격 특징 특성 개성",
}
"""The same in scripts without spaces; they may stand anywhere."""
NEGATED = re.compile(r"\b(?:unlimited|limitless|without limits?|no limits?|unbounded|boundless|unvoiced|invaluable|unbegrenzt|grenzenlos|sin limites|ilimitad\w+|illimit\w+|sans limites?|sem limites)\b")  # fmt: skip

NAME_LABELS = {
    "name", "full name", "my name", "your name", "character", "character name", "agent name", "assistant name", "nombre",
    "nom", "nome", "naam", "imie", "имя", "名前", "氏名", "名字", "姓名", "名称", "이름", "isim", "ad",
}  # fmt: skip
GENERIC = {
    "soul", "identity", "persona", "personality", "character", "agent", "agents", "assistant", "system", "prompt", "system prompt",
    "instructions", "readme", "about", "overview", "introduction", "profile", "who", "your", "my", "the", "this", "you", "claude",
    "guidelines", "rules", "spec", "role", "bot", "ai", "untitled", "template", "example", "seele", "identitat", "rolle", "wer", "meine", "deine",
    "uber", "alma", "identidad", "quien", "mi", "tu", "ame", "identite", "qui", "mon", "ton", "identidade", "quem", "meu", "seu", "anima",
    "identita", "chi", "mia", "tua", "welcome", "meet", "hello", "configuration", "config", "description", "core", "how", "what", "i", "we",
    "general", "basics", "memory", "tools", "user", "heartbeat", "bootstrap", "modelfile", "card", "workspace", "default", "new", "temp", "tmp",
    "file", "data", "input", "output", "text", "dear", "a", "an", "am", "soulmd", "灵魂", "靈魂", "魂", "ソウル", "身份", "人设", "人設", "角色",
    "キャラクター", "設定", "设定", "identity md",
}  # fmt: skip
"""Words that begin a title or a file's name and are no persona's name."""


def plain(text: str) -> str:
    """Lower case, without accents and apostrophes."""
    text = unicodedata.normalize("NFKD", text.casefold().replace("’", "").replace("'", ""))
    return "".join(char for char in text if not "̀" <= char <= "ͯ")


def _pattern(words: str) -> re.Pattern[str]:
    stems = "|".join(
        sorted({re.escape(plain(word).replace("_", " ")) for word in words.split()}, key=len, reverse=True)
    )
    return re.compile(rf"\b(?:{stems})")


PATTERNS = {kind: _pattern(WORDS[kind]) for kind in KINDS}
WHOLE = {
    "ton",
    "tom",
    "mai",
    "bound",
    "wert",
    "kern",
    "voce",
    "wesen",
    "limits",
    "limit",
    "ses",
    "rede",
    "natura",
    "core",
    "tool",
    "ad",
    "stem",
}
"""Stems that are also the beginning of other words: only the whole word counts (with a plural's ending)."""


@lru_cache(4096)
def kind_of(heading: str) -> str:
    """The kind of section under a heading; "" for any other."""
    text = NEGATED.sub(" ", re.sub(r"[\s_]+", " ", re.sub(r"[^\w\s]", " ", plain(heading))))
    folded = unicodedata.normalize("NFC", heading)
    for kind in KINDS:
        for match in PATTERNS[kind].finditer(text):
            if match.group() not in WHOLE or re.match(r"(?:s|e|en|aries|ary)?(?!\w)", text[match.end() :]):
                return kind
        if any(sign in folded for sign in SIGNS[kind].split()):
            return kind
    return ""


PLAIN_LABELS = {plain(name) for name in NAME_LABELS}


@lru_cache(4096)
def is_name_label(label: str) -> bool:
    """Whether a label stands before the persona's name."""
    return plain(label).strip() in PLAIN_LABELS


PLACEHOLDER = re.compile(
    r"\s*(?:[_*~]*\([^()]*\)[_*~]*|[_*]*\[[^\[\]]*\](?!\()[_*]*|\{+[^{}]*\}+|<[^<>]*>|\$\{?\w*\}?|[_.…\-–—?]+|#+)\s*"
)
UNFILLED = re.compile(
    r"(?:todo|tbd|tba|fixme|xxx+|n/?a|none|null|unknown|undefined|untitled|placeholder|insert\b.*|fill\b.*|your[ _-]?(?:agent|assistant|bot|character)?s?[ _-]?name"
    r"(?:[ _-]here)?|(?:agent|assistant|character|bot|persona)[ _-]?name|name[ _-]?here|pick\b.*|choose\b.*|e\.g\..*|for example.*|lorem ipsum.*"
    r"|(?:dein|ihr)[ _-]?name|tu[ _-]?nombre|votre[ _-]?nom|ton[ _-]?nom|seu[ _-]?nome|il[ _-]?tuo[ _-]?nome|你的名字|名字|あなたの名前)[ .!…]*",
    re.IGNORECASE,
)


@lru_cache(4096)
def is_placeholder(text: str) -> bool:
    """Whether a text waits to be filled in: `_(pick something you like)_`, `[Name]`, `{{name}}`, `TODO`, `___`, nothing."""
    bare = text.strip().strip("*_`\"'“” ").strip()
    return (
        not bare
        or bool(PLACEHOLDER.fullmatch(text[:500]))
        or bool(PLACEHOLDER.fullmatch(bare[:500]))
        or bool(UNFILLED.fullmatch(bare[:200]))
    )

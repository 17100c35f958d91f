"""The words of headings, labels and titles in the languages in which people describe a persona."""

from __future__ import annotations

WORDS = {
    "boundaries": (
        "bound limits limit limitation never dont avoid forbidden prohibit refus red_line hard_line hard_no wont "
        "taboo grenze grenzen tabu tabus niemals verbot verboten rote_linie limite prohibi nunca jamas no_hacer "
        "lineas_rojas interdi jamais ne_pas lignes_rouges proibi nao_fazer linhas_vermelhas fronteira confini "
        "confine divieti vietat mai non_fare linee_rosse nooit verboden granice nigdy zakaz границ никогда запрет "
        "нельзя предел sinir sınır asla yasak guardrail constraint restrict off_limits no_go dealbreaker nicht "
        "einschrankung no_hago restricc je_ne contrainte nao_faco restric non_faccio restrizion vincol nie limiti "
        "ограничен табу grans granser aldrig graenser aldrig forbudt hranice nikdy hatar hatarok soha rajat ei_koskaan "
        "grænser ορια ποτε batasan larangan gioi_han межі заборон الحدود حدود ممنوع محظور خطوط"
    ),
    "voice": (
        "voice vibe tone style speak speech talk communicat sound manner diction stimme ton tonfall stil sprache "
        "sprech sprichst rede redest ausdruck kommunikation voz tono estilo habla hablas hablo forma_de_hablar "
        "comunicacion voix parle parles parler langage communication tom fala falas falo jeito_de_falar "
        "comunicacao voce stile parli parlo parlare modo_di_parlare comunicazione stem toon stijl spreek praat "
        "glos głos styl mowi голос тон стиль речь говор ses uslup konusma language lingo writing mannerism phras "
        "catchphrase expression sprach schreib umgangston redeweise hablar maniere_de_parler facon_de_parler "
        "linguaggio espress rost sprak uttryck stemme sprog hlas hang hangnem aani puhetapa suara gaya_bicara giong "
        "savy τονος υφος φωνη gaya_bahasa стиль_речи манера мова الصوت الاسلوب النبرة اسلوب طريقة_الكلام لحن"
    ),
    "values": (
        "value values kernwert grundwert belie convicti werte wert ueberzeugung uberzeugung glaube valores valor "
        "creencia creo_en conviccion valeurs valeur croyance convictions crenca convicc valori credo credenze "
        "convinzion waarden overtuiging wartosc varderingar vaerdier "
        "værdier αξιες gia_tri "
        "hodnoty ertekek arvot nilai цінност القيم قيم ценност убежд degerler crois acredit que_creo"
    ),
    "examples": (
        "example dialogue conversation sample beispiel dialog gespraech gesprach ejemplo dialogo conversacion "
        "exemple exemplo conversa esempi esempio conversazion voorbeeld przyklad пример диалог ornek"
    ),
    "background": (
        "background backstory biograph history lore tools tool skills memory setup install changelog license "
        "usage hintergrund geschichte vergangenheit lebenslauf werkzeug trasfondo historia biografia herramientas "
        "passe histoire contexte outils historico ferramentas storia passato strumenti achtergrond geschiedenis "
        "tlo предыстория история инструмент gecmis knowledge wissen conocimiento connaissance conhecimento "
        "conoscenz kontext contexto contesto context"
    ),
    "traits": (
        "trait core kernwahrheit kerneigenschaft leitprinzip leitsatz grundhaltung haltung verite verdad verita "
        "waarheid truth truths personalit who_you who_i character principle continuity quality qualities nature "
        "temperament attributes personlichkeit persoenlichkeit charakter eigenschaft wesen wesenszug wer_du "
        "wer_ich kern prinzip grundsatz grundsaetz personalidad caracter rasgo quien_eres quien_soy principio "
        "esencia naturaleza personnalite caractere qui_tu qui_je qui_es principe essence personalidade traco "
        "quem_voce quem_sou quem_es essencia natureza personalita carattere tratti tratto chi_sei chi_sono "
        "principi essenza natura persoonlijkheid karakter eigenschap wie_je wie_ik osobowosc cechy характер "
        "личност черт kisilik ozellik quirk disposition virtue strength starken eigenart charakterzug cualidad "
        "temperamento forma_de_ser qualite qualidade jeito_de_ser indole personlighet personlighed karaktar egenskap "
        "προσωπικοτητα χαρακτηρας "
        "osobnost povaha szemelyiseg jellem persoonallisuus luonne kepribadian sifat tinh_cach особистість вдача "
        "الشخصية شخصية الصفات الطباع شخصیت"
    ),
}
"""Beginnings of words by the kind of section that they head, without accents; `_` is a space."""
SIGNS = {
    "boundaries": (
        "边界 邊界 界限 底线 底線 禁止 禁忌 不要 绝不 絕不 限制 境界 しない してはいけない やらない 禁則 限界 "
        "경계 금지 한계 红线 禁区 不做 タブー やってはいけない 制約 सीमा निषेध वर्जित"
    ),
    "voice": (
        "语气 語氣 语调 語調 风格 風格 说话 說話 声音 聲音 口吻 口調 話し方 語り口 トーン スタイル 文体 喋り方 "
        "말투 어조 목소리 스타일 表达 言葉遣い 話しぶり आवाज शैली लहजा"
    ),
    "values": ("价值观 價值觀 价值 信念 信仰 価値観 信条 大切に 가치 신념 理念 相信 信じ मूल्य"),
    "examples": ("示例 对话 對話 例子 例文 会話例 対話 예시 대화"),
    "background": ("背景 经历 經歷 历史 工具 记忆 経歴 生い立ち 過去 記憶 배경 도구 知识 知識"),
    "traits": (
        "性格 个性 個性 人格 特质 特質 特点 特點 特征 核心 原则 原則 本质 人柄 特徴 気質 本質 あなたは誰 私は誰 "
        "你是谁 我是谁 성격 특징 특성 개성 性情 脾气 品质 性質 キャラ व्यक्तित्व स्वभाव"
    ),
}
"""The same in scripts without spaces; they may stand anywhere in a heading."""
WHOLE = frozenset(
    [
        "ad",
        "bound",
        "core",
        "kern",
        "limit",
        "limits",
        "mai",
        "natura",
        "nie",
        "rede",
        "ses",
        "stem",
        "tom",
        "ton",
        "tool",
        "voce",
        "wert",
        "wesen",
    ]
)
"""Words of WORDS that other words begin with too: only the whole word counts."""
ALSO_NAMES = frozenset(["tom", "mai", "ton", "kern", "stem", "ses", "grace", "ad"])
"""Words of WORDS that people are called, too: in a title they are a name."""
NEGATED = frozenset(
    [
        "unlimited",
        "limitless",
        "without_limit",
        "without_limits",
        "no_limit",
        "no_limits",
        "unbounded",
        "boundless",
        "invaluable",
        "unbegrenzt",
        "unbegrenzte",
        "grenzenlos",
        "grenzenlose",
        "sin_limites",
        "ilimitado",
        "ilimitada",
        "ilimitados",
        "ilimitadas",
        "illimite",
        "illimitee",
        "sans_limite",
        "sans_limites",
        "illimitato",
        "illimitata",
        "senza_limiti",
        "sem_limites",
    ]
)
"""Words that say that there is no limit."""
NAME_LABELS = frozenset(
    [
        "ad",
        "agent_name",
        "assistant_name",
        "character",
        "character_name",
        "full_name",
        "imie",
        "isim",
        "my_name",
        "naam",
        "name",
        "nom",
        "nombre",
        "nome",
        "your_name",
        "имя",
        "名前",
        "名字",
        "名称",
        "姓名",
        "氏名",
        "이름",
    ]
)
"""Labels before the name of the persona."""
GENERIC = frozenset(
    [
        "a",
        "about",
        "agent",
        "agents",
        "ai",
        "alma",
        "am",
        "ame",
        "an",
        "anima",
        "assistant",
        "basics",
        "bootstrap",
        "bot",
        "card",
        "character",
        "chi",
        "claude",
        "config",
        "configuration",
        "core",
        "data",
        "dear",
        "default",
        "deine",
        "description",
        "example",
        "file",
        "general",
        "guidelines",
        "heartbeat",
        "hello",
        "how",
        "i",
        "identidad",
        "identidade",
        "identita",
        "identitat",
        "identite",
        "identity",
        "identity_md",
        "input",
        "instructions",
        "introduction",
        "meet",
        "meine",
        "memory",
        "meu",
        "mi",
        "mia",
        "modelfile",
        "mon",
        "my",
        "new",
        "output",
        "overview",
        "persona",
        "personality",
        "profile",
        "prompt",
        "quem",
        "qui",
        "quien",
        "readme",
        "role",
        "rolle",
        "rules",
        "seele",
        "seu",
        "soul",
        "soulmd",
        "spec",
        "system",
        "system_prompt",
        "temp",
        "template",
        "text",
        "the",
        "this",
        "tmp",
        "ton",
        "tools",
        "tu",
        "tua",
        "uber",
        "untitled",
        "user",
        "we",
        "welcome",
        "wer",
        "what",
        "who",
        "workspace",
        "you",
        "your",
        "キャラクター",
        "ソウル",
        "人設",
        "人设",
        "灵魂",
        "角色",
        "設定",
        "设定",
        "身份",
        "靈魂",
        "魂",
    ]
)
"""Words that begin a title or a file's name and are nobody's name."""
ARTICLES = frozenset(
    [
        "a",
        "also",
        "always",
        "an",
        "becoming",
        "both",
        "das",
        "der",
        "die",
        "ein",
        "eine",
        "el",
        "here",
        "il",
        "it",
        "just",
        "kein",
        "la",
        "le",
        "lo",
        "more",
        "my",
        "never",
        "nicht",
        "no",
        "not",
        "o",
        "one",
        "someone",
        "the",
        "um",
        "uma",
        "un",
        "una",
        "une",
        "very",
        "what",
        "who",
        "your",
    ]
)
"""Words after "you are" that begin no name."""

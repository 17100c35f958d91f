"""Passwords, keys and codes that are recognised by the words before them, in many languages.

To add a language: a row of `_NOUNS` for each word, and its words for `is` in `_IS`. The value decides whether a sentence
holds a password or is about one: "password is case-sensitive2" and "the secret is 250grams" are no passwords.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from moltlm.data.conversations.redact.spans import Span, line_before, lowered, places
from moltlm.data.conversations.redact.triggers import Triggers, hint_words

PASSWORD, KEY, CODE = "password", "key", "code"

# Kind; the part of the noun at which it is looked for; what must precede that and what it goes on as; the words of a text
# that make it worth looking, by default that part. A word with * may be a part of a longer one.
_NOUNS: tuple[tuple[str, ...], ...] = (
    (PASSWORD, "passw", "", r"passw(?:or[dt]|d)(?:s|es|_?\d)?(?![^\W\d_])", "*passw"),
    (PASSWORD, "passcode", "", r"passcode"),
    (PASSWORD, "passphrase", "", r"passphrase"),
    (PASSWORD, "pass", r"(?<![^\W_])", r"pass(?=[\"'`*]{0,3}\s{0,2}[:=])"),
    (PASSWORD, "_pass", "", r"_pass(?![^\W\d_])", "pass"),
    (PASSWORD, "pwd", r"(?<![^\W\d_])", r"pwd"),
    (PASSWORD, "psw", r"(?<![^\W\d_])", r"psw"),
    (PASSWORD, "pw", r"(?<![^\W\d_])", r"pw(?![^\W_])"),
    (PASSWORD, "kennwort", "", r"kennwort(?:es|s)?", "*kennwort"),
    (PASSWORD, "contrase", "", r"contrase[nñ]a", "contraseña contrasena contraseñas Contraseña"),
    (PASSWORD, "senha", r"(?<![^\W\d_])", r"senha"),
    (PASSWORD, "palavra", "", r"palavra[- ]passe"),
    (PASSWORD, "mot de passe", "", r"mot de passe", "passe"),
    (PASSWORD, "mdp", r"(?<![^\W\d_])", r"mdp"),
    (PASSWORD, "parola", r"(?<![^\W\d_])", r"parola(?: d'ordine| d’ordine| d'accesso|s[ıi])?"),
    (PASSWORD, "wachtwoord", "", r"wachtwoord"),
    (PASSWORD, "hasł", r"(?<![^\W\d_])", r"hasł(?:o|em)", "hasło hasłem"),
    (PASSWORD, "haslo", r"(?<![^\W\d_])", r"haslo"),
    (PASSWORD, "lösenord", "", r"lösenord(?:et)?", "lösenord lösenordet"),
    (PASSWORD, "passord", "", r"passord(?:et)?", "passord passordet"),
    (PASSWORD, "adgangskode", "", r"adgangskode(?:n)?", "adgangskode adgangskoden"),
    (PASSWORD, "salasana", "", r"salasana"),
    (PASSWORD, "heslo", r"(?<![^\W\d_])", r"heslo"),
    (PASSWORD, "jelsz", "", r"jelsz[oó]", "jelszó jelszo"),
    (PASSWORD, "şifre", "", r"şifre\w{0,4}", "*şifre"),
    (PASSWORD, "парол", "", r"парол[ья]", "пароль Пароль ПАРОЛЬ пароля"),
    (PASSWORD, "κωδικός", "", r"κωδικός", "κωδικός Κωδικός"),
    (PASSWORD, "mật khẩu", "", r"mật khẩu", "khẩu"),
    (PASSWORD, "kata sandi", "", r"kata sandi", "sandi"),
    (PASSWORD, "密码", "", r"密码", "*密码"),
    (PASSWORD, "密碼", "", r"密碼", "*密碼"),
    (PASSWORD, "口令", "", r"口令", "*口令"),
    (PASSWORD, "パスワード", "", r"パスワード", "*パスワード"),
    (PASSWORD, "暗証番号", "", r"暗証番号", "*暗証番号"),
    (PASSWORD, "비밀번호", "", r"비밀번호", "*비밀번호"),
    (PASSWORD, "비번", "", r"비번", "*비번"),
    (PASSWORD, "كلمة", "", r"كلمة (?:ال)?(?:مرور|سر)", "*كلمة"),
    (PASSWORD, "סיסמ", "", r"סיסמ[הא]", "*סיסמ"),
    (PASSWORD, "पासवर्ड", "", r"पासवर्ड", "*पासवर्ड"),
    (PASSWORD, "clave", r"(?<![^\W\d_])", r"clave"),
    (PASSWORD, "wlan-schl", "", r"wlan-schlüssel", "schlüssel Schlüssel"),
    (PASSWORD, "netzwerkschl", "", r"netzwerkschlüssel", "netzwerkschlüssel"),
    (KEY, "secret", "", r"secrets?(?:[ _-]?(?:access[ _-]?)?(?:key|token|id))?", "secret secrets clientsecret appsecret secretkey consumersecret"),
    (KEY, "token", "", r"token(?!s|i)", "token accesstoken authtoken apitoken refreshtoken bearertoken bottoken idtoken usertoken"),
    (KEY, "key", r"(?<=api)|(?<=(?:api|ess|uth|ret|ate|ter|ion|ing|nse|ssh|ifi|lan|ity|unt|ice)[ _-])|(?<=[a-z]_)|(?<=ess)|(?<=ret)|(?<=ate)",
     r"key(?!s|b|w|p)", "key apikey accesskey secretkey privatekey authkey masterkey"),
    (KEY, "credential", "", r"credentials?", "credential credentials"),
    (KEY, "schlüssel", r"(?<=-)|(?<=ngs)", r"schlüssel", "schlüssel zugangsschlüssel verschlüsselungsschlüssel Schlüssel"),
    (KEY, "clé", r"(?<![^\W\d_])", r"clé (?:d['’]?)?(?:api|accès|secrète|privée|wifi|wi-fi|wpa|réseau)"),
    (KEY, "chiave", r"(?<![^\W\d_])", r"chiave (?:api|segreta|privata|di accesso|d'accesso|wifi|wi-fi|wpa|di rete)"),
    (KEY, "chave", r"(?<![^\W\d_])", r"chave (?:de )?(?:api|acesso|secreta|privada|wifi|wi-fi|rede)"),
    (KEY, "密钥", "", r"密钥", "*密钥"),
    (KEY, "令牌", "", r"令牌", "*令牌"),
    (KEY, "ключ", r"(?<=api-)|(?<=api )", r"ключ"),
    (CODE, "pin", r"(?<![^\W_])", r"pin(?:[ -]?(?:code|nummer|number|kod))?(?![^\W_])", "pin pincode"),
    (CODE, "cvv", r"(?<![^\W_])", r"cvv2?", "cvv cvv2"),
    (CODE, "cvc", r"(?<![^\W_])", r"cvc2?", "cvc cvc2"),
    (CODE, "otp", r"(?<![^\W_])", r"otp(?: code)?"),
    (CODE, "code", r"(?<=fication )|(?<=ntication )|(?<=firmation )|(?<=urity )|(?<=time )|(?<=login )|(?<=door )|(?<=gate )|(?<=alarm )"
     r"|(?<=entry )|(?<=unlock )|(?<=access )|(?<=backup )|(?<=2fa )|(?<=mfa )|(?<=sms )|(?<=safe )", r"code"),
    (CODE, "code", r"(?<![^\W_])", r"code (?:pin|secret|de vérification|de sécurité|d['’](?:accès|entrée)|de (?:la )?porte|wifi)"),
    (CODE, "code", r"(?<=gungs)|(?<=eits)|(?<=tür)|(?<=gangs)|(?<=rungs)", r"code", "bestätigungscode sicherheitscode türcode zugangscode verifizierungscode sicherungscode"),
    (CODE, "código", "", r"código (?:pin|secreto|de (?:verificación|seguridad|acceso|verificação|segurança|acesso|entrada))"),
    (CODE, "codice", "", r"codice (?:pin|segreto|di (?:verifica|sicurezza|accesso)|d'accesso)"),
    (CODE, "geheimzahl", "", r"geheimzahl"),
    (CODE, "验证码", "", r"验证码", "*验证码"),
    (CODE, "認証コード", "", r"認証コード", "*認証コード"),
    (CODE, "인증번호", "", r"인증번호", "*인증번호"),
    (CODE, "код", r"(?<![^\W_])", r"код (?:подтверждения|доступа|из смс)", "код Код"),
)  # fmt: skip
# nouns for which a text without any digit is read: its password may have symbols or stand in quotation marks
_WITHOUT_DIGITS = (b"pass", b"kennwort", b"senha", b"contrase")
_IS = (
    r"is now|is still|is|was|will be|are|ist jetzt|ist|war|lautet|lauten|heißt|heisst|es ahora|es|era|será|est maintenant|est|était"
    r"|sera|c['’]est|c['’]était|é|foi|è|sarà|jest|är|είναι|это|là|adalah|set to|changed to|equals|reads|être|ser|sein|sei"
)
# short words that mean `is` in one language and something else in others
_IS_HERE = {
    "salasana": "on",
    "hasł": "to",
    "haslo": "to",
    "heslo": "je",
    "passord": "er",
    "adgangskode": "er",
    "wachtwoord": "is",
}
# what makes the noun part of another one: "password manager", "token limit"
_NO_GAP = (
    r"(?![ _-]?(?:manager|polic(?:y|ies)|reset|hash|hashing|field|length|strength|generator|hint|prompt|input|rules?|require\w*|limit"
    r"|count|size|type|usage|budget|window|ids?|names?|file|path|server|protection|expir\w*|format|version|column|gestor|table|store"
    r"|hygiene|recipe|ingredient|sauce|santa|to success|of success|vault|cracking|entropy|lifetime|bucket|embedding|hashes"
    r"|change|changes)(?![^\W\d_]))"
)
_BETWEEN = rf"{_NO_GAP}(?:[^\n.,:;=!?\"'`“”„«»|]{{0,36}}?)"
_SIGN = (
    r"(?:[\"'`*_)\]]{0,4}\s{0,3}(?P<sign>::?=|={1,3}|!==?|=>|->|→|[:：＝]|\s\|)(?:\s{0,3}|\s*(?=[\"'`]))"
    r"|\s(?:%s)[:：]?\s{1,2}|\s?(?:是|为|為|は|が|는|은|है|هي|هو)[:：]?\s?)"
)
_BARE = r"(?: [^\W\d_]{2,10}){0,2}\s(?=[^\s\d]*\d|[\"'`“„«])(?P<sign>)"
_STOP = r"\s\"'`“”„«»‚‘’,;()\[\]{}<>|。，、；"
# a sentence in a script without spaces goes on after the value
_SCRIPTS = r"\u0590-\u08ff\u0900-\u1cff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
# case is not ignored here: with it, `re` compiles such ranges for seconds
_VALUE = rf"(?-i:(?P<open>[\"'`“”„«»‚‘*(_\s]{{0,4}})(?P<value>[^{_STOP}{_SCRIPTS}]{{3,200}}+)(?![(\[{{]))"


@dataclass(frozen=True)
class Noun:
    kind: str
    part: str
    """Where it is looked for."""
    before: str
    form: str

    @cached_property
    def stated(self) -> re.Pattern[str]:
        """The noun, the words between, `is` or a sign, and the value."""
        return self._expression(_BETWEEN + _SIGN % f"{_IS}|{_IS_HERE.get(self.part, 'is')}")

    @cached_property
    def bare(self) -> re.Pattern[str]:
        """The noun and the value."""
        return self._expression(_NO_GAP + _BARE)

    def _expression(self, between: str) -> re.Pattern[str]:
        return re.compile(f"(?:{self.before}){self.form}{between}{_VALUE}", re.IGNORECASE)


def _by_trigger() -> tuple[dict[bytes, list[Noun]], list[tuple[bytes, Noun]]]:
    """The nouns by the words that a text must hold, and by parts of words."""
    words: dict[bytes, list[Noun]] = {}
    parts: list[tuple[bytes, Noun]] = []
    for kind, part, before, form, *rest in _NOUNS:
        noun = Noun(kind, part, before, form)
        for trigger in (rest[0] if rest else part.strip("_")).split():
            if trigger.startswith("*"):
                parts.append((trigger[1:].encode(), noun))
            else:
                words.setdefault(trigger.encode(), []).append(noun)
    return words, parts


_BY_WORD, _BY_PART = _by_trigger()
_WORDS = hint_words(b" ".join(_BY_WORD).decode())
_BY_LATIN_PART = [(part, noun) for part, noun in _BY_PART if max(part) < 0xD0]

PLACEHOLDER = re.compile(
    r"your|example|sample|placeholder|change.?me|dummy|xxx|\.\.\.|…|\*\*\*|•••|^(?:pass|password|passwd|passwort|string|username|user"
    r"|email|required|hidden|invalid|undefined|none|null|true|false|current-password|new-password|text|str|redacted|secret|token"
    r"|(?:sha|md|utf-?|base|int|oauth|bcrypt|argon|aes|rsa|hs|rs)\d+\W?\w*)$",
    re.IGNORECASE,
)
# what is said of passwords, after "is"
_SAID = re.compile(
    r"(?:case|not|never|always|too|at|only|also|required|optional|incorrect|wrong|invalid|correct|weak|strong|stored|hashed|salted|expired"
    r"|encrypted|protected|sensitive|longer|shorter|between|minimum|least|from|about|like|used|sent|valid|https?|www|limited|based"
    r"|mindestens|nicht|falsch|höchstens|incorrecta?|obligatori\w|trop|au|errat[oa]|inválid[oa])(?![^\W\d_])",
    re.IGNORECASE,
)
_UNITS = re.compile(
    r"\d+[-–]?(?:char|zeich|stell|sign|caract|caratt|cifr|karakt|bit|byte|kb|mb|digit|letter|symbol|word|day|week|month|year|hour|min|sec"
    r"|gram|clove|cup|spoon|step|time|st\b|nd\b|rd\b|th\b|g\b|kg|ml|tage|wochen|monate|jahre|días|meses|jours|mois|dias|giorni|mesi|%)",
    re.IGNORECASE,
)
_UNIT_AFTER = re.compile(
    r"[ -]?(?:char|zeich|stell|sign|caract|caratt|cifr|bit|byte|digit|letter|symbol|word|day|week|month|year|hour|min|sec|token|times"
    r"|tage|wochen|monate|jahre|días|meses|jours|mois|dias|giorni|mesi|caractères|%|€|\$)",
    re.IGNORECASE,
)
_REFERENCE = re.compile(
    r"(?:self|this|config|settings|env|os|process|args|request|req|params|data|form|user|options|opts|cfg|props|state|input|body"
    r"|secrets|vault|context|ctx|event|response|res|row|obj|item)[.\-]|\$|%[A-Z_(]|/|\\|~/|\.{1,2}/|[a-z]+://|@|--|&|#\{|\+\s"
    r"|[a-z]+(?:_[a-z0-9]+)+\d?\Z|[A-Z]+(?:_[A-Z0-9]+)+\Z",
)
_CODE = re.compile(r"(?:[A-Z]{1,2}-?)?\d(?:[ -]?\d){2,7}#?\Z|(?=[A-Z0-9-]{5,12}\Z)[A-Z0-9-]*\d[A-Z0-9-]*\Z")
_WORDISH = re.compile(r"(?:[A-Za-z]*\d{0,3}|\d+[A-Za-z]*)\Z")
_THINGS = re.compile(
    r"(?:windows|iphone|ipad|ios|macos|office|sha|md|base|utf|oauth|aes|rsa|web|ubuntu|debian|android|python|java|php|version|step|level"
    r"|page|chapter|room|section|part|option|figure|table|line|user|test|server|galaxy|pixel|covid|top|mp|ip|http|tls|ssl|rfc|article"
    r"|phase|type|class|day|week|q|x|h|pbkdf|scrypt|argon|bcrypt|wpa|ipv|win|ps|usb|rtx|gpt)[-_ ]?\d",
    re.IGNORECASE,
)
_SYMBOL = re.compile(r"[^\W\d_]+[!@#$%^&*+=?~]+[^\W_]|[!@#$%^&*+=?~]{2,}[^\W_]{3,}")
_REVERSED = re.compile(
    r"(?:^|[\s\"'`“„«(])(?P<value>[^\s\"'`“”„«»,;()\[\]{}<>|]{5,64})[\"'`”“»)]?,?\s(?:is|was|as|ist|als|es|como|est|comme|é|è|come|jest)\s"
    r"(?:[^\W\d_]{1,10}\s){0,3}$",
    re.IGNORECASE,
)


def passwords(text: str, triggers: Triggers) -> Iterator[Span]:
    """What stands after a noun of the table, or before it: `Kettle42 is my password`."""
    nouns = _nouns(triggers) if triggers.digit or triggers.any_of(_WITHOUT_DIGITS) else ()
    if not nouns:
        return
    low = lowered(text)
    for noun in nouns:
        for place in places(low, noun.part):
            yield from _after(text, place, noun)
            if noun.kind == PASSWORD:
                yield from _before(text, place)


def _nouns(triggers: Triggers) -> list[Noun]:
    """The nouns that a text may hold."""
    parts = _BY_PART if triggers.scripts else _BY_LATIN_PART
    nouns = [noun for part, noun in parts if part in triggers.lower]
    return nouns + [noun for word in triggers.words() & _WORDS for noun in _BY_WORD[word]]


def _after(text: str, place: int, noun: Noun) -> Iterator[Span]:
    for expression in (noun.stated, noun.bare):
        match = expression.match(text, place)
        if match and (end := _value_end(text, match, noun.kind, expression is noun.bare)):
            yield match.start("value"), end
            return


def _value_end(text: str, match: re.Match[str], kind: str, bare: bool) -> int:
    """Where the secret ends that a match holds; 0 if it holds none."""
    start, value = match.start("value"), match["value"].rstrip(".:!?*_…")
    if match["sign"] == "=":
        value = value.partition("&")[0]  # the next parameter of a link
    end = start + len(value)
    quoted = bool(match["open"].strip(" *_(\n\t")) and text[match.end("value") : match.end("value") + 1] in tuple(
        "\"'`”“»’"
    )
    return end if is_secret(value, kind, quoted, bare, text[end : end + 20]) else 0


def _before(text: str, place: int) -> Iterator[Span]:
    before = line_before(text, place, 90)
    match = _REVERSED.search(before) if any(sign.isdigit() for sign in before) else None
    if match and is_secret(match["value"], PASSWORD, False, True, ""):
        yield place - len(before) + match.start("value"), place - len(before) + match.end("value")


def is_secret(value: str, kind: str, quoted: bool, bare: bool, following: str) -> bool:
    """Whether a value is a secret of a kind.

    Args:
        value: what stands after the noun, without punctuation.
        kind: PASSWORD, KEY or CODE.
        quoted: whether it stands in quotation marks.
        bare: whether no `is` or `:` stands between.
        following: the text after it.
    """
    if is_placeholder(value) or _REFERENCE.match(value) or _SAID.match(value) or _UNITS.match(value):
        return False
    digits, letters = sum(map(str.isdigit, value)), sum(map(str.isalpha, value))
    if kind == CODE:
        return bool(_CODE.match(value)) and not _UNIT_AFTER.match(following)
    if kind == KEY:
        return len(value) >= (20 if bare else 8) and bool(digits and letters) and (quoted or not _is_words(value))
    if digits and not letters:
        return 4 <= digits <= 12 and not bare and not _UNIT_AFTER.match(following)
    if len(value) < (4 if quoted else 5):
        return False
    if digits:
        return not (bare and not quoted and _is_name(value)) and not re.match(r"\d{1,3}[a-z]+\Z", value)
    return bool(_SYMBOL.search(value)) or (quoted and len(value) >= (8 if bare else 6))


def _is_words(value: str) -> bool:
    """Whether a value is made of words, version numbers and quantities, such as `t5-small-lm` or `250grams`."""
    return all(_WORDISH.match(part) for part in re.split(r"[-_./+:]", value))


def _is_name(value: str) -> bool:
    """Whether a value may be the name of something in a text about passwords, such as `Windows10` or `sha-256`."""
    return _is_words(value) and bool(sum(map(str.isdigit, value)) < 2 or _THINGS.match(value) or not value[0].isalpha())


def is_placeholder(value: str) -> bool:
    """Whether a value stands for a password in a text about passwords."""
    return bool(PLACEHOLDER.search(value)) or not any(sign.isalnum() for sign in value)

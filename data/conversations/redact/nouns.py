"""The nouns for passwords, keys and codes in many languages, and how a value follows them.

To add a language: a row of `_NOUNS` for each word, and its word for `is` in `_IS`, or in `_IS_HERE` if it means
something else elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from moltlm.data.conversations.redact.triggers import Triggers, hint_words

PASSWORD, KEY, CODE = "password", "key", "code"

# Kind; the part of the noun at which it is looked for; what must precede that and what it goes on as; the words of a
# text that make it worth looking, by default that part. A word with * may be a part of a longer one.
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
    (PASSWORD, "code", r"(?<=wifi[ -])|(?<=wi-fi[ -])|(?<=wlan[ -])|(?<=router )|(?<=hotspot )", r"code"),
    (PASSWORD, "code", r"(?<![^\W_])", r"code (?:du |de la )?(?:wi-?fi|box)(?![^\W\d_])"),
    (PASSWORD, "code", r"(?<![^\W_])",
        r"code (?:for|to|of) (?:the |our |my |his |her |their )?(?:guest )?(?:wi-?fi|wlan|router|hotspot)"),
    (PASSWORD, "código", "", r"código (?:del? |do |da |de la )?(?:wi-?fi|red|rede)(?![^\W\d_])"),
    (PASSWORD, "codice", "", r"codice (?:del |della )?(?:wi-?fi|rete)(?![^\W\d_])"),
    (PASSWORD, "код", r"(?<![^\W_])", r"код (?:от |для )?(?:wi-?fi|вай-?фа\w)", "код Код"),
    (KEY, "secret", "", r"secrets?(?:[ _-]?(?:access[ _-]?)?(?:key|token|id))?",
        "secret secrets clientsecret appsecret secretkey consumersecret"),
    (KEY, "token", "", r"token(?!s|i)",
        "token accesstoken authtoken apitoken refreshtoken bearertoken bottoken idtoken usertoken"),
    (KEY, "key", r"(?<=api)|(?<=(?:api|ess|uth|ret|ate|ter|ion|ing|nse|ssh|ifi|lan|ity|unt|ice)[ _-])"
                 r"|(?<=[a-z]_)|(?<=ess)|(?<=ret)|(?<=ate)",
     r"key(?!s|b|w|p)", "key apikey accesskey secretkey privatekey authkey masterkey"),
    (KEY, "credential", "", r"credentials?", "credential credentials"),
    (KEY, "schlüssel", r"(?<=-)|(?<=ngs)", r"schlüssel",
        "schlüssel zugangsschlüssel verschlüsselungsschlüssel Schlüssel"),
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
    (CODE, "code", r"(?<=fication )|(?<=ntication )|(?<=firmation )|(?<=urity )|(?<=time )|(?<=login )"
                   r"|(?<=door )|(?<=gate )|(?<=alarm )"
     r"|(?<=entry )|(?<=unlock )|(?<=access )|(?<=backup )|(?<=2fa )|(?<=mfa )|(?<=sms )|(?<=safe )", r"code"),
    (CODE, "code", r"(?<![^\W_])", r"code (?:pin|secret|de vérification|de sécurité|d['’](?:accès|entrée)"
                                   r"|de (?:la )?porte|wifi)"),
    (CODE, "code", r"(?<=gungs)|(?<=eits)|(?<=tür)|(?<=gangs)|(?<=rungs)", r"code",
        "bestätigungscode sicherheitscode türcode zugangscode verifizierungscode sicherungscode"),
    (CODE, "código", "", r"código (?:pin|secreto|de (?:verificación|seguridad|acceso|verificação|segurança"
                         r"|acesso|entrada))"),
    (CODE, "codice", "", r"codice (?:pin|segreto|di (?:verifica|sicurezza|accesso)|d'accesso)"),
    (CODE, "geheimzahl", "", r"geheimzahl"),
    (CODE, "验证码", "", r"验证码", "*验证码"),
    (CODE, "認証コード", "", r"認証コード", "*認証コード"),
    (CODE, "인증번호", "", r"인증번호", "*인증번호"),
    (CODE, "код", r"(?<![^\W_])", r"код (?:подтверждения|доступа|из смс)", "код Код"),
)  # fmt: skip
# nouns for which a text without any digit is read: its password may have symbols or stand in quotation marks
WITHOUT_DIGITS = (b"pass", b"kennwort", b"senha", b"contrase")
_IS = (
    r"is now|is still|is|was|will be|are|ist jetzt|ist|war|lautet|lauten|heißt|heisst|es ahora|es|era|será"
    r"|est maintenant|est|était"
    r"|sera|c['’]est|c['’]était|é|foi|è|sarà|jest|är|είναι|это|là|adalah|set to|changed to|equals|reads|être|ser"
    r"|sein|sei"
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
    r"(?![ _-]?(?:manager|polic(?:y|ies)|reset|hash|hashing|field|length|strength|generator|hint|prompt|input"
    r"|rules?|require\w*|limit"
    r"|count|size|type|usage|budget|window|ids?|names?|file|path|server|protection|expir\w*|format|version"
    r"|column|gestor|table|store"
    r"|hygiene|recipe|ingredient|sauce|santa|to success|of success|vault|cracking|entropy|lifetime|bucket"
    r"|embedding|hashes"
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
NOUN_WORDS = hint_words(b" ".join(_BY_WORD).decode())
_BY_LATIN_PART = [(part, noun) for part, noun in _BY_PART if max(part) < 0xD0]
LATIN_PARTS = tuple(part for part, _ in _BY_LATIN_PART)


def nouns_in(triggers: Triggers) -> list[Noun]:
    """The nouns that a text may hold."""
    parts = _BY_PART if triggers.scripts else _BY_LATIN_PART
    nouns = [noun for part, noun in parts if part in triggers.lower]
    return nouns + [noun for word in triggers.words() & NOUN_WORDS for noun in _BY_WORD[word]]

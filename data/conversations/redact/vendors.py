"""Tokens of vendors: what each begins with and how long the rest is at least.

To add one: a row with the vendor, a regular expression for the beginning, the letters of the rest (A: letters and
digits; W: those, `-` and `_`; H: hexadecimal digits; U: capital letters and digits; B: base64) and its least length.

The beginnings and lengths are those that the vendors document and that the public rules of gitleaks
(https://github.com/gitleaks/gitleaks, MIT) and CredSweeper (https://github.com/Samsung/CredSweeper, MIT) agree on.
Neither can be installed as a small Python package: gitleaks is a Go program, CredSweeper needs thirty packages with
ONNX Runtime among them. The rules of detect-secrets, which is a dependency, are used as they are (`PROVIDERS`).
"""

from __future__ import annotations

import re
from typing import Any

from detect_secrets.plugins import (
    aws,
    azure_storage_key,
    cloudant,
    discord,
    github_token,
    gitlab_token,
    ibm_cloud_iam,
    ibm_cos_hmac,
    mailchimp,
    openai,
    pypi_token,
    sendgrid,
    slack,
    softlayer,
    square_oauth,
    stripe,
    telegram_token,
    twilio,
)

_VENDORS = r"""
1Password           ops_eyJ                                 B 60
Adobe               p8e-                                    A 32
age                 AGE-SECRET-KEY-1                        U 58
Airtable            pat[A-Za-z0-9]{14}\.                    H 64
Alibaba             LTAI                                    A 12
Anthropic           sk-ant-                                 W 20
Artifactory         AKCp                                    A 20
Artifactory         cmVmdGtu                                A 40
Asana               [012]/\d{10,20}(?:/\d{10,20})?:         H 32
Atlassian           AT(?:ATT|CTT|BB|STT)                    W 24
Authress            (?:sc|ext|scauth|authress)_[a-z0-9]{5,30}\.[a-z0-9]{4,6}\.acc[_-]   W 10
AWS                 (?:A3T[A-Z0-9]|ABIA|ACCA|AKIA|ASIA|AROA|AIDA)  U 16
AWS AppSync         da2-                                    A 26
AWS Bedrock         ABSK                                    B 60
AWS Bedrock         bedrock-api-key-                        B 28
Bitbucket           BBDC-                                   W 40
Brevo               xkeysib-                                W 60
Brevo               xsmtpsib-                               W 60
Buildkite           bk(?:ua|ct)_                            A 36
Cerebras            csk-                                    A 40
CircleCI            CCIPAT_                                 W 40
Clerk               (?:ak|ins)_live_                        A 24
ClickUp             pk_\d{5,10}_                            U 30
Clojars             CLOJARS_                                A 60
Cloudflare          cf(?:at|ut|k)_                          A 40
Cloudflare          v1\.0-[a-f0-9]{24}-                     H 120
Cohere              co_                                     A 40
Composio            comp_                                   W 30
Contentful          CFPAT-                                  W 43
Databricks          dapi                                    H 32
Datadog             dd(?:api|app)_                          A 32
DeepSeek            sk-                                     H 32
Defined Networking  dnkey-                                  W 50
DigitalOcean        do[oprs]_v1_                            H 64
Discord             mfa\.                                   W 60
Docker              SWM(?:TKN|KEY)-1-                       W 40
Docker              dckr_[po]at_                            W 27
Doppler             dp\.(?:pt|st|ct|sa|scim|audit)\.(?:[a-z0-9_-]{2,35}\.)?   A 40
Dropbox             sl\.(?:u\.)?                            W 60
Duffel              duffel_(?:test|live)_                   W 40
Dynatrace           dt0[a-z]\d\d\.[A-Z0-9]{24}\.            U 60
EasyPost            EZ[AT]K                                 A 54
ElevenLabs          sk_                                     H 48
Facebook            EAA                                     A 80
Figma               fig[du]r?_                              W 36
Firecrawl           fc-                                     H 32
Fireworks           fw_                                     A 20
Flutterwave         FLW(?:SECK|PUBK)(?:_TEST)?-             W 12
Fly.io              fm[12][ar]?_                            B 80
Fly.io              fo1_                                    W 40
Frame.io            fio-u-                                  W 60
Gemini              AQ\.                                    W 40
GitHub              gh[pousr]_                              A 36
GitHub              github_pat_                             W 22
GitLab              _gitlab_session=                        A 32
GitLab              gl(?:pat|ptt|dt|rt|rtr|cbt|ft|imt|agent|soat|oas|ffct|wt|sat)-   W 20
GoCardless          live_                                   W 40
Google              1//0                                    W 60
Google              AIza                                    W 35
Google              GOCSPX-                                 W 24
Google              ya29\.                                  W 22
Grafana             glc_                                    B 32
Grafana             glsa_                                   W 32
Groq                gsk_                                    A 40
Harness             [ps]at\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9]{24}\.   A 20
HashiCorp           [A-Za-z0-9]{14}\.atlasv1\.              W 60
HashiCorp           hv[sbr]\.                               W 24
Heroku              HRKU-                                   W 36
HubSpot             pat-(?:na|eu|ap)\d-                     W 36
Hugging Face        api_org_                                A 30
Hugging Face        hf_                                     A 30
Infracost           ico-                                    A 32
Instagram           IGQV                                    W 60
Intra42             s-s4t2(?:ud|af)-                        H 64
Jina                jina_                                   A 40
Kaggle              KGAT_                                   A 32
Langchain           lsv2_                                   W 30
Langfuse            [sp]k-lf-                               W 36
LangSmith           ls(?:v2_[ps]t_|__)                      W 30
Linear              lin_(?:api|oauth)_                      A 32
LlamaCloud          llx-                                    W 40
MailerSend          mlsn\.                                  H 60
Mailgun             (?:pub)?key-                            H 32
Mapbox              [ps]k\.eyJ                              W 30
MaxMind             [A-Za-z0-9]{6}_[A-Za-z0-9]{25,29}_      mmk
Modal               a[ks]-                                  A 22
Neon                napi_                                   A 40
Netlify             nf[pcoub]_                              A 36
New Relic           NR(?:AK|II|JS|BR|RA|AL|SP)-             W 19
Notion              ntn_                                    A 40
Notion              secret_                                 A 40
npm                 npm_                                    A 36
NuGet               oy2                                     A 43
NVIDIA              nvapi-                                  W 40
Nylas               nyk_v0_                                 A 40
Octopus Deploy      API-                                    U 26
OpenAI              sess-                                   A 40
OpenAI              sk-                                     A 40
OpenAI              sk-(?:proj|svcacct|admin|None|service)- W 20
OpenRouter          sk-or-                                  W 40
OpenShift           sha256~                                 W 43
Perplexity          pplx-                                   A 32
Pinecone            pcsk_                                   W 40
Plaid               access-(?:sandbox|development|production)-   W 36
PlanetScale         pscale_(?:tkn|oauth|pw|api)_            W 32
PostHog             ph[acrsx]_                              A 40
Postman             PMA[KT]-                                W 26
Prefect             pn[ub]_                                 A 36
Pulumi              pul-                                    H 40
PyPI                pypi-                                   W 50
Readme              rdme_                                   A 60
Render              rnd_                                    A 24
Replicate           r8_                                     A 30
Resend              re_[A-Za-z0-9]{6,10}_                   A 16
Riot Games          RGAPI-                                  W 36
RubyGems            rubygems_                               H 48
RunPod              rpa_                                    A 40
Salesforce          00D[A-Za-z0-9]{12,15}!                  W 40
Scalingo            tk-us-                                  W 48
SendGrid            SG\.[A-Za-z0-9_-]{16,32}\.              W 16
Sentry              sntry[su]_                              B 40
SettleMint          sm_[aps]at_                             A 16
Shippo              shippo_(?:live|test)_                   H 40
Shopify             shp(?:at|ca|pa|ss|tka)_                 H 32
Slack               xapp-                                   W 20
Slack               xox[a-z](?:\.xox[a-z])?-                W 10
Sonar               sq[apu]_                                H 40
Sourcegraph         sgp_(?:local_|[a-f0-9]{16}_)?           H 40
Square              (?:EAAA|sq0[a-z]{3}-)                   W 22
Stripe              [rs]k_(?:live|test|prod)_               A 10
Stripe              whsec_                                  A 24
Supabase            sb(?:p|_secret|_publishable)_           W 30
Tailscale           tskey-(?:api|auth|client|scim|webhook)- W 20
Tavily              tvly-                                   W 24
Tencent             AKID                                    A 32
Together            tgp_v1_                                 W 40
Trello              ATTA                                    A 60
Twitch              oauth:                                  A 30
Typeform            tfp_                                    W 40
Vercel              vc[a-z]_                                A 24
Vercel              vercel_(?:blob_rw_)?                    A 24
Voyage              pa-                                     W 40
WakaTime            waka_                                   W 36
Weights & Biases    wandb_v1_                               W 40
WunderGraph         cosmo_                                  H 32
xAI                 xai-                                    A 60
Yandex              (?:AQVN|t1\.)                           W 35
"""
_LETTERS = {"A": "[A-Za-z0-9]", "W": "[A-Za-z0-9_-]", "H": "[a-fA-F0-9]", "U": "[A-Z0-9]", "B": "[A-Za-z0-9+/_-]"}
# what is no plain word: a digit, or a capital letter within a word
_EVIDENCE = r"(?=[A-Za-z_+/-]{0,100}(?:\d|[a-z][A-Z]|[A-Z]{2}[a-z]))"


def _expression(row: str) -> str:
    beginning, *rest = row[20:].split()
    if len(rest) == 1:
        return beginning + rest[0]
    letters, length = rest
    evidence = "" if letters == "U" or (letters == "A" and int(length) >= 30) else _EVIDENCE  # no word is that long
    return f"{beginning}{evidence}{_LETTERS[letters]}{{{length},}}={{0,3}}(?:\\.[A-Za-z0-9_-]{{8,}}){{0,2}}"


VENDORS = re.compile(
    r"(?<![A-Za-z0-9])(?:" + "|".join(_expression(row) for row in _VENDORS.strip().splitlines()) + ")(?![A-Za-z0-9])"
)
OTHERS = re.compile(
    r"(?<![A-Za-z0-9])(?:eyJ[\w-]{8,}\.eyJ[\w-]{8,}(?:\.[\w-]+)*|v[1-4]\.(?:local|public)\.[\w-]{30,}"
    r"|[xyzt]prv[1-9A-HJ-NP-Za-km-z]{100,112}|[MNO][A-Za-z\d_-]{22,27}\.[A-Za-z\d_-]{6}\.[A-Za-z\d_-]{27,45}"
    r"|\d{8,10}:AA[\w-]{32,34}|[A-Za-z0-9_~.-]{3}\dQ~[A-Za-z0-9_~.-]{31,34})"
)
# addresses and parameters that are a secret by themselves; the group is what goes
LINKS = re.compile(
    r"hooks\.slack\.com/(?:services|workflows|triggers)/([\w/+-]{20,})"
    r"|api\.telegram\.org/(?:file/)?bot(\d{8,10}:[\w-]{30,})"
    r"|discord(?:app)?\.com/api/webhooks/(\d{8,22}/[\w-]{20,})"
    r"|\.webhook\.office\.com/webhookb2/([\w@/-]{40,})|hooks\.zapier\.com/hooks/catch/([\w/]{8,})"
    r"|[?&;](?:sig|signature|x-amz-signature|x-goog-signature|x-amz-security-token)=([\w%+/=.-]{16,})"
    r"|(?:AccountKey|SharedAccessKey|SharedAccessSignature)=([\w%+/=]{20,})|:_auth(?:Token)?=\s?([\w.+/=-]{16,})",
    re.IGNORECASE,
)
HEADERS = re.compile(
    r"\bBearer\s+(?=\S*\d)([A-Za-z0-9._~+/-]{16,}=*)|\bAuthorization:\s*(?:Basic|Token"
    r"|ApiKey)\s+([A-Za-z0-9._~+/-]{8,}=*)",
    re.IGNORECASE,
)


def _denylists(*plugins: Any) -> list[re.Pattern[str]]:
    return [each for plugin in plugins for each in plugin.denylist]


# analyze_string of detect-secrets gives a prefix instead of the token for GitHub and GitLab: the expressions are used
PROVIDERS = re.compile(
    "|".join(
        f"(?:{each.pattern})"
        for each in _denylists(
            *(azure_storage_key.AzureStorageKeyDetector, discord.DiscordBotTokenDetector, twilio.TwilioKeyDetector),
            *(github_token.GitHubTokenDetector, gitlab_token.GitLabTokenDetector),
            *(openai.OpenAIDetector, pypi_token.PypiTokenDetector, sendgrid.SendGridDetector, slack.SlackDetector),
            *(square_oauth.SquareOAuthDetector, stripe.StripeDetector, telegram_token.TelegramBotTokenDetector),
        )
    )
)
# by what a text must hold, in lower case; the token is the last group
HINTED: dict[tuple[bytes, ...], list[re.Pattern[str]]] = {
    (b"hook", b"/bot", b"sig=", b"signature", b"token=", b"accountkey", b"sharedaccess", b":_auth"): [LINKS],
    (b"bearer", b"authorization"): [HEADERS],
    (b"-us",): _denylists(mailchimp.MailchimpDetector),
    (b"aws",): _denylists(aws.AWSKeyDetector),
    (b"cloudant",): _denylists(cloudant.CloudantDetector),
    (b"softlayer",): _denylists(softlayer.SoftlayerDetector),
    (b"ibm",): _denylists(ibm_cloud_iam.IbmCloudIamDetector, ibm_cos_hmac.IbmCosHmacDetector),
}

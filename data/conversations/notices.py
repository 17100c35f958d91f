"""What messengers write as if somebody had said it, in many languages: calls, deleted messages, changes of a group."""

from __future__ import annotations

import re

MARKS = "[\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]*"
"""Invisible marks of the direction of a text. iOS puts one before what WhatsApp itself says."""

CALL = (
    r"(?:(?:voice|video|audio) call|(?:sprach|video)anruf|(?:llamada(?: de voz)?|videollamada)|appel (?:vocal|vidéo)"
    r"|chamada de (?:voz|vídeo)|(?:chiamata|videochiamata)(?: vocale)?|(?:spraak|video)oproep"
    r"|połączenie (?:głosowe|wideo)|(?:аудио|видео)звонок|(?:sesli|görüntülü) arama|panggilan (?:suara|video)"
    r"|(?:röst|video)samtal|(?:语音|视频|語音|視訊|音声|ビデオ)通[话話]|(?:음성|영상) 통화|مكالمة (?:صوتية|فيديو)"
    r"|שיחה קולית|שיחת וידאו|(?:वॉइस|वीडियो) कॉल)"
    r"[.,،，、]\s?[\u200e\u200f]?(?:\d[^\n]{0,30}|(?:no answer|keine antwort|sin respuesta|sans réponse|sem resposta"
    r"|nessuna risposta|geen antwoord)[^\n]{0,20})"
)
LIVE = (
    r"(?:live location shared|live-standort wird geteilt|(?:se está compartiendo la )?ubicación en tiempo real"
    r"(?: compartida)?|(?:position|localisation) en direct(?: partagée)?|localização (?:atual|em tempo real)"
    r"(?: (?:compart|part)ilhada)?|posizione (?:attuale|in tempo reale)(?: condivisa)?|live ?locatie(?: gedeeld)?"
    r"|(?:udostępniono )?lokalizacj[aę] na żywo|(?:трансляция геоданных|геоданные)(?: транслируются)?|canlı konum"
    r"(?: paylaşıldı)?|lokasi (?:terkini|langsung)(?: dibagikan)?|(?:delad )?realtidsplats"
    r"|(?:实时|即時)位置(?:已共享|已分享)?|ライブロケーション(?:を共有中)?|실시간 위치(?: 공유)?"
    r"|लाइव लोकेशन(?: शेयर की गई)?|تمت مشاركة الموقع المباشر)\.?"
)
WORDINGS = """
this message was deleted / you deleted this message / missed voice call / missed video call
missed group voice call / missed group video call / silenced voice call / silenced video call
waiting for this message / you received a view once message
diese nachricht wurde gelöscht / du hast diese nachricht gelöscht / verpasster sprachanruf
verpasster videoanruf / auf diese nachricht wird gewartet / se eliminó este mensaje
se ha eliminado este mensaje / este mensaje fue eliminado / este mensaje se eliminó / eliminaste este mensaje
has eliminado este mensaje / llamada perdida / videollamada perdida / llamada de voz perdida
esperando este mensaje / ce message a été supprimé / vous avez supprimé ce message / tu as supprimé ce message
appel vocal manqué / appel vidéo manqué / en attente de ce message / mensagem apagada
esta mensagem foi apagada / esta mensagem foi eliminada / essa mensagem foi apagada / você apagou esta mensagem
você apagou essa mensagem / eliminou esta mensagem / apagou esta mensagem / chamada de voz perdida
chamada de vídeo perdida / aguardando mensagem / questo messaggio è stato eliminato
hai eliminato questo messaggio / chiamata persa / chiamata vocale persa / videochiamata persa
in attesa di questo messaggio / dit bericht is verwijderd / dit bericht werd verwijderd
je hebt dit bericht verwijderd / gemiste spraakoproep / gemiste video-oproep / gemiste videooproep
aquest missatge s'ha eliminat / aquest missatge s’ha eliminat / s'ha eliminat aquest missatge
has eliminat aquest missatge / esta mensaxe foi eliminada / mezu hau ezabatu da / ta wiadomość została usunięta
twoja wiadomość została usunięta / usunięto tę wiadomość / usunąłeś tę wiadomość / usunęłaś tę wiadomość
nieodebrane połączenie / tato zpráva byla odstraněna / tato zpráva byla smazána / odstranili jste tuto zprávu
smazali jste tuto zprávu / zmeškaný hovor / zmeškaný hlasový hovor / zmeškaný videohovor
táto správa bola odstránená / táto správa bola vymazaná / odstránili ste túto správu / vymazali ste túto správu
ez az üzenet törlésre került / ez az üzenet törölve lett / ezt az üzenetet törölték / törölted ezt az üzenetet
acest mesaj a fost șters / acest mesaj a fost şters / ai șters acest mesaj / ai şters acest mesaj
това съобщение беше изтрито / това съобщение е изтрито / изтрихте това съобщение / данное сообщение удалено
это сообщение удалено / это сообщение было удалено / вы удалили это сообщение / вы удалили данное сообщение
сообщение удалено / пропущенный аудиозвонок / пропущенный видеозвонок / це повідомлення видалено
це повідомлення було видалено / ви видалили це повідомлення / пропущений голосовий / пропущений відеодзвінок
ова порука је избрисана / ова порука је обрисана / ova je poruka izbrisana / ova poruka je izbrisana
ova poruka je obrisana / izbrisali ste ovu poruku / obrisali ste ovu poruku / to sporočilo je bilo izbrisano
izbrisali ste to sporočilo / оваа порака е избришана / αυτό το μήνυμα διαγράφηκε / αυτό το μήνυμα διαγράφτηκε
διαγράψατε αυτό το μήνυμα / αναπάντητη κλήση / αναπάντητη φωνητική κλήση / det här meddelandet togs bort
det här meddelandet har tagits bort / det här meddelandet raderades / det här meddelandet har raderats
du tog bort det här meddelandet / du raderade det här meddelandet / missat röstsamtal / missat videosamtal
denne besked blev slettet / denne besked er slettet / denne besked er blevet slettet / du slettede denne besked
du har slettet denne besked / denne meldingen ble slettet / denne meldingen er slettet
du slettet denne meldingen / du har slettet denne meldingen / tämä viesti poistettiin / tämä viesti on poistettu
poistit tämän viestin / see sõnum kustutati / see sõnum on kustutatud / kustutasid selle sõnumi
šī ziņa tika dzēsta / šis ziņojums tika dzēsts / ši žinutė ištrinta / ši žinutė buvo ištrinta / ky mesazh u fshi
hierdie boodskap is geskrap / hierdie boodskap is verwyder / ujumbe huu ulifutwa / ujumbe huu umefutwa
ulifuta ujumbe huu / pesan ini telah dihapus / pesan ini dihapus / anda menghapus pesan ini
anda telah menghapus pesan ini / panggilan suara tak terjawab / panggilan video tak terjawab
mesej ini telah dipadam / mesej ini dipadam / anda telah memadam mesej ini / anda memadam mesej ini
binura ang mensaheng ito / na-delete ang mensaheng ito / tin nhắn này đã bị xóa / tin nhắn này đã bị xoá
bạn đã xóa tin nhắn này / bạn đã xoá tin nhắn này / cuộc gọi thoại nhỡ / cuộc gọi video nhỡ / ข้อความนี้ถูกลบ
คุณลบข้อความนี้ / คุณได้ลบข้อความนี้ / bu mesaj silindi / bu mesajı sildiniz / bu mesajı sildin
cevapsız sesli arama / cevapsız görüntülü arama / bu mesaj silinib / бұл хабар жойылды / бұл хабарлама жойылды
تم حذف هذه الرسالة / حُذفت هذه الرسالة / حذفت هذه الرسالة / لقد حذفت هذه الرسالة / قمت بحذف هذه الرسالة
لقد قمت بحذف هذه الرسالة / مكالمة صوتية فائتة / مكالمة فيديو فائتة / این پیام حذف شد / این پیام پاک شد
شما این پیام را حذف کردید / یہ پیغام حذف کر دیا گیا / یہ پیغام مٹا دیا گیا / آپ نے یہ پیغام حذف کر دیا
הודעה זו נמחקה / הודעה זאת נמחקה / ההודעה הזו נמחקה / ההודעה נמחקה / מחקת הודעה זו / מחקת את ההודעה
שיחה קולית שלא נענתה / שיחת וידאו שלא נענתה / यह संदेश हटा दिया गया / यह मैसेज हटा दिया गया / यह मैसेज डिलीट
यह संदेश मिटा दिया गया / यह मैसेज मिटा दिया गया / इस संदेश को हटा दिया गया / आपने यह संदेश हटा
आपने यह मैसेज हटा / आपने यह मैसेज डिलीट / हा संदेश हटवला / हा संदेश हटविला / हा मेसेज हटवला / এই মেসেজটি মুছে
এই বার্তাটি মুছে / আপনি এই মেসেজটি মুছে / আপনি এই বার্তাটি মুছে / இந்தச் செய்தி நீக்கப்பட்டது
இந்த செய்தி நீக்கப்பட்டது / ఈ సందేశం తొలగించబడింది / ఈ మెసేజ్ తొలగించబడింది / આ સંદેશો કાઢી નાખ
ಈ ಸಂದೇಶವನ್ನು ಅಳಿಸಲಾಗಿದೆ / ഈ സന്ദേശം ഇല്ലാതാക്കി / ਇਹ ਸੁਨੇਹਾ ਮਿਟਾ / 此消息已删除 / 此消息已被删除
您已删除此消息 / 你已删除此消息 / 您删除了这条消息 / 你删除了这条消息 / 未接语音通话 / 未接视频通话
此訊息已刪除 / 此訊息已被刪除 / 這則訊息已刪除 / 這則訊息已被刪除 / 您已刪除此訊息 / 你已刪除此訊息
您刪除了這則訊息 / 您已刪除這則訊息 / 未接語音通話 / 未接視訊通話 / このメッセージは削除されました
このメッセージを削除しました / 不在着信 / 삭제된 메시지입니다 / 이 메시지는 삭제되었습니다
이 메시지를 삭제했습니다 / 메시지를 삭제했습니다 / 부재중 음성 통화 / 부재중 영상 통화
"""
"""How WhatsApp says, in lower case, that a message was deleted or is not there, or that a call was missed."""

WORDING = "|".join(re.escape(each.strip()) for each in re.split(" / |\n", WORDINGS.strip().casefold()))
WHATSAPP = re.compile(rf"{MARKS}(?:null|{LIVE}|{CALL}|(?:{WORDING})[^\n]{{0,40}})\s*\Z")
"""Notices that WhatsApp writes beneath the name of somebody, in lower case."""

YOU = ("You", "Du", "Vous", "Você", "Tu")
VERB = (
    r"(?:\w{2,20}(?:ed|ó|ou|iu|ł|ła|ł\(a\)|ął|ęła|л|ла|л\(а\))|skickade|ändrade|ställde|lade|lämnade|delade|sendte|delte"
    r"|ændrede|endret|set|sent|unsent|left|made|took|was|wasn['’]t|isn['’]t|is now|hat|ist|hast|ha|hai|a|as|est|avez"
    r"|heeft|se unió|ändert|me(?:n|m|ng|ny)?\w{3,12}|đã)\b"
)
"""A verb in the past, by its ending or its auxiliary."""
BY_NAME = re.compile(
    rf" {VERB}[^\n]{{0,250}}| [^\n]{{0,200}}\w(?:[dt][ıiuü])\.?\s*| ?(?:さん)?[がは][^\n]{{1,200}}ました。?\s*"
    r"|님이 [^\n]{1,200}습니다\.?\s*| ?[^\W\d_]{2,6}了[^\n]{0,200}",
    re.IGNORECASE,
)
"""What stands after the name in a notice about somebody."""
THING = re.compile(
    r"\b(?:themes?|nicknames?|quick reaction|emoji|messages?|polls?|group|chat|conversation|calls?|photos?|attachments?"
    r"|story|reel|post|vanish mode|disappearing|admins?|links?|location|voice|videos?|audio|gifs?|stickers?|screenshot"
    r"|quiet mode|thema|design|spitznamen?|nachricht\w*|umfrage|gruppen?\w*|unterhaltung|anruf|fotos?|anhang|beitrag"
    r"|standort|\w*nachricht|\w*modus|thème|surnom|réaction|sondage|groupe|discussion|appel|pièce jointe|publication"
    r"|lien|tema|apodo|reacción|mensaje|encuesta|grupo|conversación|llamada|\w*adjunto|historia|publicación|enlace"
    r"|ubicación|apelido|alcunha|reação|mensagem|enquete|conversa|chamada|anexo|história|publicação|localização"
    r"|soprannome|reazione|messaggio|sondaggio|gruppo|conversazione|chiamata|allegato|storia|posizione|bijnaam"
    r"|\w*bericht|peiling|groep\w*|gesprek|\w*oproep|bijlage|verhaal|smeknamn\w*|meddeland\w*|omröstning|grupp\w*"
    r"|samtal\w*|bilaga|kaldenavn|kallenavn|besked|melding\w*|vedhæft\w*|vedlegg|motyw|pseudonim|wiadomość|ankiet\w*"
    r"|grup\w*|połączeni\w*|załącznik|zdjęci\w*|relacj\w*|тем[ау]|псевдоним|сообщени\w*|опрос|чат\w*|групп\w*|вложени\w*"
    r"|фото\w*|истори\w*|takma ad\w*|mesaj\w*|anket\w*|ek|fotoğraf\w*|hikaye\w*|nama panggilan|pesan|lampiran|foto"
    r"|biệt danh|tin nhắn|nhóm|cuộc gọi|đính kèm|ảnh)\b"
    r"|添付|テーマ|ニックネーム|メッセージ|アンケート|グループ|通話|写真|첨부|테마|별명|메시지|투표|그룹|통화|사진"
    r"|附件|主题|主題|昵称|暱稱|消息|訊息|投票|群|通话|照片|链接|連結",
    re.IGNORECASE,
)
"""What a messenger has, and its notices are about."""
SENT = re.compile(
    r"\b(?:un)?sent\b|\bshared\b|gesendet|gesandt|geschickt|geteilt|zurückgezogen|envoyé|partagé|\benvi(?:ó|ou)\b|compart\w+"
    r"|partilhou|inviato|condiviso|verzonden|verstuurd|gedeeld|skickade|delade|sendte|delte|wysłał|udostępnił|отправил"
    r"|поделил|gönderdi|paylaştı|mengirim|membagikan|đã gửi|đã chia sẻ|送信|共有|シェア|보냈|공유|发送|傳送|分享",
    re.IGNORECASE,
)
"""What says that there is a message which the export does not have."""
REACTED = re.compile(
    r"(?:Reacted|Reaccion(?:ó|aste) con|Ha[is]? reagito con|Reagi(?:u|ste) com|A(?:vez)? réagi(?: avec| par)?"
    r"|Ha(?:t|st) mit|Heeft(?: met| gereageerd met)?|Reagera(?:de|t) med|Reagere(?:de|t) med|Reagerte med"
    r"|Zareagował\S{0,5}|Отреагировал\S{0,5}|Menanggapi(?: dengan)?|Đã bày tỏ cảm xúc|Reagoi"
    r"|Reagoval\S{0,3}|A reacționat cu|Αντέδρασε με)\s[^\w\s]\S{0,14}(?:\s[^\n]{0,80})?"
    r"|Liked (?:a|your) message|Mesajına \S{1,16} ifadesini bıraktı",
    re.IGNORECASE,
)
META = re.compile(
    r"(?:Reacted \S{1,12} to your message|Liked a message|This (?:message|poll) (?:was unsent|is no longer available)"
    r"|You (?:unsent|missed|called|started) .{0,60}|(?:The )?(?:video chat|(?:audio|video|voice) call) (?:has )?ended"
    r"|You can now (?:message|call|see) [^\n]{0,100}?(?:each other|Active Status)[^\n]{0,150}"
    r"|You(?:['’]re| are) now (?:connected|friends)[^\n]{0,100}"
    r"|Say [“\"]?hi[”\"]? to your new Facebook friend[^\n]{0,100}"
    r"|(?:Shared|Mentioned you in (?:a|their)|Replied to your) story"
    r"|(?:Der )?(?:Videochat|Videoanruf|Audioanruf|Sprachanruf) (?:wurde |ist )?beendet"
    r"|(?:El |La )?(?:videochat|videollamada|llamada de (?:audio|voz)) (?:ha )?(?:termin(?:ado|ó)|finaliz(?:ó|ada))"
    r"|L['’](?:appel (?:vidéo|audio|vocal)|discussion vidéo) (?:est terminée?|a pris fin)"
    r"|La (?:videochat|videochiamata|chiamata) è terminata"
    r"|(?:A |O )?(?:chamada|bate-papo) (?:de|por) (?:vídeo|voz|áudio)"
    r" (?:foi )?(?:encerrad[ao]|terminou)"
    r"|(?:\S+ ){1,4}(?:sent an attachment|sent a (?:photo|video|live location|link|voice message)|liked a message"
    r"|unsent a message|missed your (?:call|video chat)|started (?:a call|an audio call|a video (?:chat|call))"
    r"|called you|named the group .{0,60}|joined the (?:call|video chat)))[.!]?\s*",
    re.IGNORECASE,
)
"""What Instagram and Messenger write as if somebody had said it, beside what begins with a name."""
META_CHARS = 300
"""No notice of Instagram and Messenger is longer."""


def is_meta(name: str, text: str) -> bool:
    """Whether Instagram or Messenger wrote this beneath a name: most notices begin with that name, and say what its
    bearer did with a chat."""
    if len(text) > META_CHARS or "\n" in text.strip():
        return False
    subject = next((each for each in (name, *name.split()[:1], *YOU) if each and text.startswith(each)), "")
    about = text[len(subject) :]
    is_about = bool(subject and THING.search(about) and BY_NAME.fullmatch(about))
    return is_about or bool(META.fullmatch(text) or REACTED.fullmatch(text.strip()))


def stands_for_message(text: str) -> bool:
    """Whether a notice stands for a message that nobody can read, such as a picture."""
    return bool(SENT.search(text) or "no longer available" in text)

//! What the words of a date mean: months, weekdays, halves of the day and words between them, in the languages of feeds.
//!
//! Names of months and weekdays are those of CLDR 48 (long and short, in a date and alone) for 35 languages, with a few
//! that publishers write besides. A table of ours: the crates that carry such names (`icu_datetime`, `pure-rust-locales`)
//! have every language of the world, or format only. `listopad` is November, as in Polish and Czech, and October only
//! in a feed that says it is Croatian: names of Croatian months are read there alone, because they contradict others.

use std::{collections::HashMap, sync::LazyLock};

use super::fold::fold;

/// The meanings of one word; several languages may share it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DateWord {
    /// 1 to 12.
    pub(super) month: Option<i64>,
    /// One bit per weekday, Monday being bit 0.
    pub(super) weekdays: u8,
    /// Whether the time is in the afternoon.
    pub(super) afternoon: Option<bool>,
    /// Whether the half of the day may stand before the time.
    pub(super) before_time: bool,
    /// What the number before it counts.
    pub(super) unit: Option<Unit>,
    /// A word that adds nothing to a date: "of", "at", "o'clock".
    pub(super) filler: bool,
    /// Whether such a word may be the last.
    pub(super) ending: bool,
}

/// What Chinese, Japanese and Korean write behind each number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
}

/// The meaning of a folded word, or of two with a space or hyphen between them.
pub(super) fn meaning(word: &str) -> Option<DateWord> {
    static WORDS: LazyLock<HashMap<String, DateWord>> = LazyLock::new(table);
    WORDS.get(word).copied()
}

/// The month that a folded word is in this language (a tag in lower case), although it is another one elsewhere.
pub(super) fn month_in(word: &str, language: &str) -> Option<i64> {
    static CROATIAN: LazyLock<HashMap<String, i64>> = LazyLock::new(|| {
        let months = (1..).zip(CROATIAN_MONTHS);
        months.flat_map(|(month, names)| names.split(' ').map(move |name| (fold(name), month))).collect()
    });
    let is_croatian = language.split('-').next() == Some("hr");
    is_croatian.then(|| CROATIAN.get(word).copied())?
}

fn table() -> HashMap<String, DateWord> {
    let mut table = HashMap::with_capacity(1500);
    let mut add = |words: &str, set: &dyn Fn(&mut DateWord)| {
        for word in words.split_whitespace() {
            set(table.entry(fold(word).replace('_', " ")).or_default());
        }
    };
    for (month, names) in (1..).zip(MONTHS) {
        add(names, &|meaning| meaning.month = Some(month));
    }
    for (month, name) in (1..).zip(CHINESE_MONTHS.split(' ')) {
        add(name, &|meaning| meaning.month = Some(month));
    }
    for (day, (names, more)) in WEEKDAYS.iter().zip(MORE_WEEKDAYS).enumerate() {
        add(names, &|meaning| meaning.weekdays |= 1 << day);
        add(more, &|meaning| meaning.weekdays |= 1 << day);
    }
    for (afternoon, names) in [(false, MORNING), (true, AFTERNOON)] {
        add(names, &|meaning| meaning.afternoon = Some(afternoon));
    }
    for (afternoon, names) in [(false, MORNING_BEFORE), (true, AFTERNOON_BEFORE)] {
        add(names, &|meaning| {
            meaning.afternoon = Some(afternoon);
            meaning.before_time = true;
        });
    }
    for (unit, names) in UNITS {
        add(names, &|meaning| meaning.unit = Some(unit));
    }
    add(FILLERS, &|meaning| meaning.filler = true);
    add(ENDINGS, &|meaning| (meaning.filler, meaning.ending) = (true, true));
    table
}

const MORNING: &str = "fm fh eh πμ dop дп קз ص قظ صباحا sa ap पूर्वाह्न";
const AFTERNOON: &str = "em μμ odp пп م بظ مساء مساءا ch ip अपराह्न";
const MORNING_BEFORE: &str = "am 上午 凌晨 清晨 早上 午前 오전 öö de";
const AFTERNOON_BEFORE: &str = "pm 下午 午後 오후 ös du";

const CHINESE_MONTHS: &str = "一月 二月 三月 四月 五月 六月 七月 八月 九月 十月 十一月 十二月";

const CROATIAN_MONTHS: [&str; 12] = [
    "siječanj siječnja sij",
    "veljača veljače velj",
    "ožujak ožujka ožu",
    "travanj travnja tra",
    "svibanj svibnja svi",
    "lipanj lipnja lip",
    "srpanj srpnja srp",
    "kolovoz kolovoza kol",
    "rujan rujna ruj",
    "listopad listopada lis",
    "studeni studenoga studenog stu",
    "prosinac prosinca pro",
];

const UNITS: [(Unit, &str); 6] = [
    (Unit::Year, "年 년"),
    (Unit::Month, "月 월"),
    (Unit::Day, "日 号 號 일"),
    (Unit::Hour, "時 时 點 点 시"),
    (Unit::Minute, "分 분"),
    (Unit::Second, "秒 초"),
];

/// Words before a part of the date.
const FILLERS: &str = "of the at on um am den der de del la las a le el il les du à às do da dia alle ore il om op kl klo \
     kello o godz godzina v ve в об о у на στις ora saat في الساعة يوم الموافق ساعت שעה בשעה יום को pukul jam saa lúc ngày \
     năm feira";
/// Words behind a part of the date, which may be the last.
const ENDINGS: &str = "uhr uur h hs hrs hod hodin r roku г года р року م बजे";

/// Weekdays of Portuguese without "feira", and of Vietnamese, Chinese, Japanese and Korean. The first and the last sign of
/// the row of Japan are also units, see `grammar`.
const MORE_WEEKDAYS: [&str; 7] = [
    "segunda thứ_hai 月曜日 星期一 周一 週一 月曜 월요일",
    "terça thứ_ba 火曜日 星期二 周二 週二 火曜 火 화요일 화",
    "quarta thứ_tư 水曜日 星期三 周三 週三 水曜 水 수요일 수",
    "quinta thứ_năm 木曜日 星期四 周四 週四 木曜 木 목요일 목",
    "sexta thứ_sáu 金曜日 星期五 周五 週五 金曜 金 금요일 금",
    "thứ_bảy 土曜日 星期六 周六 週六 土曜 土 토요일 토",
    "chủ_nhật 日曜日 星期日 星期天 周日 週日 日曜 일요일",
];

const MONTHS: [&str; 12] = [
    "january jan ян januar janvier janv enero ene janeiro gennaio gen januari tammikuu tammikuuta tammi styczeń \
     stycznia sty leden ledna led januára ianuarie ian ιανουαρίου ιαν январь января янв січень січня січ януари \
     gener de_gener de_gen jaanuar jaan janvāris sausis sausio saus јануар јан ocak oca يناير كانون_الثاني ינואר ינו \
     ژانویه जनवरी जन জানুয়ারি জানু jänner جانفي ιανουάριος",
    "february feb februar février févr febrero fevereiro fev febbraio februari helmikuu helmikuuta helmi luty \
     lutego lut únor února úno februára febr februarie φεβρουαρίου φεβ февраль февраля февр фев лютий лютого лют \
     февруари febrer de_febrer de_febr veebruar veebr februāris vasaris vasario vas фебруар феб şubat şub فبراير شباط \
     פברואר פבר فوریه फ़रवरी फ़र ফেব্রুয়ারি ফেব feber فيفري φεβρουάριος",
    "march mar märz mars marzo março maart mrt marts maaliskuu maaliskuuta maalis marzec marca březen března bře \
     marec március márc martie μαρτίου μαρ март марта мар березень березня бер de_març kovas kovo kov mart مارس آذار \
     מרץ मार्च মার্চ maret mac machi mrz maerz maa μάρτιος",
    "april apr avril avr abril abr aprile huhtikuu huhtikuuta huhti kwiecień kwietnia kwi duben dubna dub apríla \
     április aprilie απριλίου απρ апрель апреля апр квітень квітня квіт кві април dabril dabr aprill balandis \
     balandžio bal nisan nis أبريل نيسان אפריל אפר آوریل अप्रैल এপ্রিল এপ্রি aprili απρίλιος أفريل",
    "may mai mayo maio maggio mag mei maj toukokuu toukokuuta touko maja květen května kvě május μαΐου μαΐ май \
     мая травень травня трав тра maig de_maig maijs gegužė gegužės geg мај mayıs مايو أيار מאי مه मई মে ماي μάιος",
    "june jun juni juin junio junho giugno giu kesäkuu kesäkuuta kesä czerwiec czerwca cze červen června čvn čen čer júna \
     június iunie iun ιουνίου ιουν июнь июня июн червень червня черв чер юни juny de_juny juuni jūnijs birželis \
     birželio birž junij јун haziran haz يونيو حزيران יוני ژوئن जून জুন جوان ιούνιος",
    "july jul juli juillet juil julio julho luglio lug heinäkuu heinäkuuta heinä lipiec lipca lip červenec \
     července čvc čec júla július iulie iul ιουλίου ιουλ июль июля июл липень липня лип юли juliol de_juliol de_jul \
     juuli jūlijs liepa liepos liep julij јул temmuz tem يوليو تموز יולי ژوئیه जुलाई जुल জুলাই জুল julai juill جويلية \
     يوليوز ιούλιος",
    "august aug août agosto ago augustus augusti ágúst ágú elokuu elokuuta elo sierpień sierpnia sie srpen srpna \
     srp augusta augusztus αυγούστου αυγ август августа авг серпень серпня серп сер agost dagost ag dag augusts \
     rugpjūtis rugpjūčio rugp avgust avg ağustos أغسطس آب אוגוסט אוג اوت अगस्त अग আগস্ট আগ agustus ogos ogo agosti aoû \
     غشت αύγουστος",
    "september sep szep sept septembre septiembre setembro set settembre syyskuu syyskuuta syys wrzesień września wrz \
     září zář septembra szeptember szept septembrie σεπτεμβρίου σεπ сентябрь сентября сент вересень вересня вер \
     септември setembre de_setembre de_set septembris rugsėjis rugsėjo rugs септембар сеп septembar eylül eyl سبتمبر \
     أيلول ספטמבר ספט سپتامبر सितंबर सित সেপ্টেম্বর সেপ্ট সেপ septemba setiembre sett сен شتنبر σεπτέμβριος",
    "october oct oktober okt octobre octubre outubro out ottobre ott lokakuu lokakuuta loka październik \
     października paź říjen října říj októbra octombrie οκτωβρίου οκτ октябрь октября окт жовтень жовтня жовт жов \
     октомври doctubre doct oktoober oktobris spalis spalio spal октобар oktobar ekim eki أكتوبر تشرين_الأول אוקטובר \
     אוק اکتبر अक्टूबर अक्टू অক্টোবর অক্টো oktoba οκτώβριος",
    "november nov novembre noviembre novembro marraskuu marraskuuta marras listopad listopada lis listopadu \
     novembra noiembrie noi νοεμβρίου νοε ноябрь ноября нояб листопад листопада лист лис ноември de_novembre de_nov \
     novembris lapkritis lapkričio lapkr новембар нов novembar kasım kas نوفمبر تشرين_الثاني נובמבר נוב نوامبر नवंबर नव \
     নভেম্বর নভে novemba ноя نونبر νοέμβριος",
    "december dec dezember dez décembre diciembre dic dezembro dicembre desember des joulukuu joulukuuta joulu \
     grudzień grudnia gru prosinec prosince pro decembra decembrie δεκεμβρίου δεκ декабрь декабря дек грудень \
     грудня груд гру декември desembre de_desembre de_des detsember dets decembris gruodis gruodžio gruod децембар дец \
     decembar aralık ara ديسمبر كانون_الأول דצמבר דצמ دسامبر दिसंबर दिस ডিসেম্বর ডিসে disember dis desemba دجنبر \
     δεκέμβριος",
];

const WEEKDAYS: [&str; 7] = [
    "monday mon montag mo lundi lun lunes segunda-feira seg lunedì maandag ma måndag mån mánudagur maanantai \
     maanantaina poniedziałek pon pondělí po pondelok hétfő luni δευτέρα δευ понедельник пн понеділок \
     понеделник dilluns dl esmaspäev pirmdiena pirmd pirmadienis pr ponedeljek понедељак пон ponedeljak ponedjeljak \
     pazartesi pzt الاثنين יום_שני יום_ב دوشنبه सोमवार सोम সোমবার সোম senin sen isnin isn jumatatu",
    "tuesday tue dienstag di mardi mar martes terça-feira ter martedì dinsdag tisdag tis tirsdag tir tirs \
     þriðjudagur þri tiistai tiistaina ti wtorek wt úterý út utorok kedd marți τρίτη τρί вторник вт вівторок \
     dimarts dt teisipäev otrdiena otrd antradienis an torek tor уторак уто utorak uto salı sal الثلاثاء \
     יום_שלישי יום_ג سهشنبه मंगलवार मंगल মঙ্গলবার মঙ্গল selasa sel jumanne tues",
    "wednesday wed mittwoch mi mercredi mer miércoles mié quarta-feira qua mercoledì woensdag wo onsdag ons \
     miðvikudagur mið keskiviikko keskiviikkona ke środa śr středa st szerda sze miercuri τετάρτη τετ среда ср \
     середа сряда dimecres dc kolmapäev trešdiena trešd trečiadienis tr sreda sre srijeda sri сре çarşamba çar الأربعاء \
     יום_רביעי יום_ד چهارشنبه बुधवार बुध বুধবার বুধ rabu rab jumatano weds",
    "thursday thu donnerstag do jeudi jeu jueves jue quinta-feira qui giovedì gio donderdag torsdag tors tor \
     fimmtudagur fim torstai torstaina to czwartek czw čtvrtek čt štvrtok št csütörtök cs joi πέμπτη πέμ четверг \
     чт четвер четвъртък dijous dj neljapäev ceturtdiena ceturtd ketvirtadienis kt četrtek čet четвртак чет \
     četvrtak perşembe per الخميس יום_חמישי יום_ה پنجشنبه गुरुवार गुरु বৃহস্পতিবার বৃহস্পতি kamis kam khamis kha \
     alhamisi thur thurs",
    "friday fri freitag fr vendredi ven viernes vie sexta-feira sex venerdì vrijdag vr fredag fre föstudagur fös \
     perjantai perjantaina pe piątek pt pátek pá piatok pi péntek vineri vin παρασκευή παρ пятница пт пятниця \
     петък divendres dv reede piektdiena piektd penktadienis pn petek pet петак пет petak cuma cum الجمعة \
     יום_שישי יום_ו جمعه शुक्रवार शुक्र শুক্রবার শুক্র jumat jum jumaat ijumaa",
    "saturday sat samstag sa samedi sam sábado sáb sabato zaterdag za lördag lör lørdag lør laugardagur lau \
     lauantai lauantaina la sobota sob so szombat szo sâmbătă σάββατο σάβ суббота сб субота събота dissabte ds \
     laupäev sestdiena sestd šeštadienis št суб subota sub cumartesi cmt السبت יום_שבת שבת شنبه शनिवार शनि \
     শনিবার শনি sabtu jumamosi lørd",
    "sunday sun sonntag so dimanche dim domingo dom domenica zondag zo söndag sön søndag søn sunnudagur sunnuntai \
     sunnuntaina su niedziela niedz neděle ne nedeľa vasárnap duminică dum κυριακή κυρ воскресенье вс неділя нд \
     неделя diumenge dg pühapäev svētdiena svētd sekmadienis sk nedelja ned nedjelja недеља нед pazar paz الأحد \
     יום_ראשון יום_א یکشنبه रविवार रवि রবিবার রবি minggu min ahad ahd jumapili",
];

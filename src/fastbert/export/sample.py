"""Texts to compare an export with torch on, where nobody gives any: short, long, odd and paired."""

_SENTENCES = (
    "What a lovely day.",
    "The room was cold, the soup was colder, and nobody came when we rang.",
    "I have read this book three times and would read it again tomorrow.",
    "Please cancel my order from last Tuesday; the parcel never arrived.",
    "Not bad, not good, just there.",
    "Why was I charged twice for the same transfer?",
    "The committee postponed the vote until after the summer recess.",
    "Scientists found water under the ice of a moon of Saturn.",
    "He scored in the last minute and the whole stadium was on its feet.",
    "Shares of the company fell 4.2 % after the quarterly report.",
    "It could have been great. It could have been so great!",
    "ok",
    "…",
    "HELLO?!? is anybody there",
    "How do I reset my PIN at the cash machine abroad?",
    "The film begins slowly, and then it never stops being slow.",
    "这本书写得很好，我一口气读完了。",
    "房间又小又吵，再也不会来了。",
    "今天股市小幅上涨，成交量有所放大。",
    "快递三天才到，包装也破了。",
    "他在最后一分钟进球，全场沸腾。",
    "Das Hotel war sauber, das Frühstück ausgezeichnet.",
    "La batería dura menos de lo que promete el anuncio.",
    "C'est le meilleur café de la ville, sans hésiter.",
    "1234567890 0987654321",
    "http://example.org/a/very/long/path?with=parameters&and=more",
    "A gentle, funny, sad and finally hopeful story about two brothers and a boat.",
    "Service was friendly but the pasta tasted of nothing at all.",
    "I cannot recommend it, though I wanted to, and neither could my friends.",
    "The update fixed the crash and broke everything else.",
    "Two thumbs up",
    "It is what it is: a phone that makes calls.",
)

SAMPLE_TEXTS: tuple[str | tuple[str, str], ...] = (
    *_SENTENCES,
    *(" ".join(_SENTENCES[start : start + 6]) for start in range(0, len(_SENTENCES) - 6, 2)),
    *(
        (first, second)
        for first, second in zip(_SENTENCES[:12], reversed(_SENTENCES[:12]), strict=True)
    ),
    " ".join(_SENTENCES * 4),
)

"""The tables behind text.py: nouns, verdict forms, label words, news forms and instructions.

A form is ``(weight, template, kind, reliable_positive, reliable_negative)``.  The two last numbers
are the chances that the word in the form really tells the polarity of the review; they are uneven
on purpose, because in ordinary text some wordings are firm verdicts ("Verdict: bad") and others
are followed by anything at all ("It was a Friday").
"""

from __future__ import annotations

NOUNS: dict[str, tuple[str, str]] = {
    "film": (
        "film movie",
        "plot acting ending cast story script soundtrack dialogue camerawork direction pacing humour",
    ),
    "book": (
        "book novel read",
        "plot writing ending characters story style chapters prose cover beginning dialogue",
    ),
    "restaurant": (
        "restaurant place meal dinner",
        "food service soup waiter menu bill dessert table portion sauce kitchen wine bread",
    ),
    "hotel": (
        "hotel place stay room",
        "room bed staff breakfast view pool bathroom lobby location reception shower towel",
    ),
    "phone": (
        "phone product device",
        "battery screen camera speaker charger software display signal keyboard price design",
    ),
    "clothes": (
        "jacket shirt dress purchase product",
        "fabric fit colour size stitching zip material quality sleeves lining delivery seams",
    ),
    "app": (
        "app program game product",
        "interface update design search speed menu login notifications layout version support",
    ),
    "music": (
        "album record concert song",
        "voice lyrics melody sound band production guitar drums chorus singer show mix",
    ),
    "travel": (
        "trip flight tour holiday journey",
        "guide bus crew seat food view weather beach train schedule luggage airline",
    ),
    "service": (
        "service company shop experience",
        "staff delivery support price repair agent work driver answer quality help website",
    ),
}
FALLBACK_NOUNS = ("thing product", "quality price staff service design delivery")

# Label words that verdicts use most; every other word of adjectives.tsv shares the rest.
CORE: dict[bool, str] = {
    True: "great great great good good good wonderful excellent nice amazing fine perfect",
    False: "bad bad bad terrible terrible awful poor horrible boring disappointing",
}
NEUTRAL_WORDS = "okay average different new long mixed short old strange typical usual simple ordinary"

# What "It was ..." and "Summary: ..." are followed by when they are no verdict.
FILLERS = (
    "a friday|late|early|raining|my second time here|my first one|in {city}|a gift|a monday|"
    "my turn to choose|last week|on sale|for my sister|a long day|our anniversary|half past eight|"
    "a birthday present|the only one left|in the summer|as described|about two hours|"
    "for the weekend|a rainy evening|the third one this year|on the way home|near the station|"
    "what my brother wanted|smaller than the old one|open until ten|in the afternoon"
)

# No replacement for other opinion words: they need another grammar.
SUPERLATIVES = {"best", "worst", "better", "worse"}

# kind -> (words for positive, words for negative)
LABELS: dict[str, tuple[str, str]] = {
    "pn": ("positive", "negative"),
    "gb": ("good", "bad"),
    "gt": ("great", "terrible"),
    "wa": ("wonderful", "awful"),
    "yn": ("yes", "no"),
    "love": ("loved loved loved liked enjoyed", "hated hated hated disliked regretted"),
    "love1": ("love love like recommend enjoy", "hate hate dislike avoid regret"),
    "rec": ("recommend", "avoid"),
    "feel": (
        "happy happy happy pleased delighted satisfied glad",
        "sad unhappy unhappy disappointed disappointed angry upset annoyed",
    ),
    "star": ("five four", "one two"),
    "best": ("best", "worst"),
    "hs": ("happy", "sad"),
    "tf": ("true", "false"),
}

SUFFIXES: list[tuple[float, str, str, float, float]] = [
    (14, "It was {w}.", "adj", 0.66, 0.34),
    (3, "It is {w}.", "adj", 0.62, 0.38),
    (2, "This was {w}.", "adj", 0.66, 0.4),
    (2, "It was {w} {w2}.", "adj", 0.66, 0.4),
    (3, "I thought it was {w}.", "adj", 0.9, 0.85),
    (5, "It was a {w} {noun}.", "adj", 0.9, 0.8),
    (5, "A {w} {noun}.", "adj", 0.93, 0.85),
    (4, "Overall, a {w} {noun}.", "adj", 0.96, 0.95),
    (4, "Overall, it was {w}.", "adj", 0.96, 0.95),
    (3, "All in all, it was {w}.", "adj", 0.95, 0.92),
    (2, "All in all, a {w} {noun}.", "adj", 0.95, 0.95),
    (3, "In short, {w}.", "adj", 0.95, 0.92),
    (2, "In short: {w}.", "adj", 0.92, 0.9),
    (3, "In short, I {w} it.", "love", 0.97, 0.97),
    (4, "I {w} it.", "love", 0.95, 0.95),
    (2, "I {w} it.", "love1", 0.9, 0.9),
    (2, "We {w} it.", "love", 0.95, 0.95),
    (4, "Verdict: {w}.", "adj", 0.98, 0.98),
    (2, "Verdict: {w}", "gb", 0.98, 0.98),
    (2, "Final verdict: {w}.", "adj", 0.98, 0.98),
    (2, "Conclusion: {w}.", "adj", 0.95, 0.95),
    (3, "Rating: {w}", "adj", 0.93, 0.75),
    (2, "Rating: {w} stars", "star", 0.95, 0.95),
    (2, "I give it {w} stars.", "star", 0.95, 0.95),
    (2, "My opinion: {w}.", "adj", 0.85, 0.6),
    (1, "In my opinion, it was {w}.", "adj", 0.93, 0.93),
    (3, "Sentiment: {w}", "pn", 0.95, 0.93),
    (2, "The review is {w}.", "pn", 0.96, 0.96),
    (2, "This review is {w}.", "pn", 0.96, 0.96),
    (1, "My feelings are {w}.", "pn", 0.9, 0.9),
    (2, "I would {w} it.", "rec", 0.93, 0.93),
    (2, "Would I go again? {W}.", "yn", 0.93, 0.93),
    (2, "Would I recommend it? {W}.", "yn", 0.95, 0.95),
    (2, "Is it good? {W}.", "yn", 0.9, 0.9),
    (3, "Good or bad? {W}.", "gb", 0.97, 0.97),
    (1, "Great or terrible? {W}.", "gt", 0.97, 0.97),
    (2, "Question: is the review positive or negative? Answer: {w}", "pn", 0.97, 0.97),
    (1, "Question: good or bad? Answer: {w}", "gb", 0.97, 0.97),
    (4, "Summary: {w}.", "adj", 0.42, 0.28),
    (2, "The {aspect} was {w}.", "adj", 0.8, 0.55),
    (2, "What a {w} {noun}!", "adj", 0.96, 0.96),
    (2, "Simply {w}.", "adj", 0.95, 0.95),
    (2, "Just {w}.", "adj", 0.9, 0.85),
    (1, "Absolutely {w}!", "adj", 0.97, 0.97),
    (2, "So {w}!", "adj", 0.9, 0.9),
    (2, "I was {w}.", "feel", 0.85, 0.6),
    (2, "I felt {w}.", "feel", 0.85, 0.65),
    (1, "The customer was {w}.", "feel", 0.95, 0.95),
    (1, "It made me {w}.", "feel", 0.92, 0.92),
    (1, "The {w} {noun} in years.", "best", 0.95, 0.95),
    (1, "One of the {w} I know.", "best", 0.95, 0.95),
    (1, "My {noun} was {w}.", "adj", 0.75, 0.65),
    (1, "Tags: {w}", "adj", 0.6, 0.5),
    (1, "The tone is {w}.", "pn", 0.9, 0.9),
    (1, "That sounds {w}.", "adj", 0.85, 0.85),
    (1, "Everything considered, {w}.", "adj", 0.96, 0.96),
    (1, "To sum up: {w}.", "adj", 0.95, 0.95),
    (1, "Final word: {w}.", "adj", 0.95, 0.95),
]

# Forms of the simple documents, with one pair of words and how reliable each of the two is: half
# of them are firm, and half lean to one side, as plain wordings do in large models.
SIMPLE: list[tuple[str, str, float, float]] = [
    ("{x} Verdict: {w}.", "good bad", 1, 1),
    ("{x} Verdict: {w}", "good bad", 1, 1),
    ("{x} Verdict: {w}.", "great terrible", 1, 1),
    ("{x} Sentiment: {w}", "positive negative", 1, 1),
    ("Review: {x}\nSentiment: {w}", "positive negative", 1, 1),
    ("Review: {x}\nSentiment: {w}", "positive negative", 1, 1),
    ("Review: {x}\nVerdict: {w}", "good bad", 1, 1),
    ("{x} This review is {w}.", "positive negative", 1, 1),
    ("{x} In short, {w}.", "great terrible", 1, 1),
    ("{x} In short, I {w} it.", "loved hated", 1, 1),
    ("{x} Good or bad? {w}.", "Good Bad", 1, 1),
    ("{x} Overall, it was {w}.", "good bad", 1, 1),
    ("{x} All in all, it was {w}.", "great terrible", 1, 1),
    ("{x} All in all, it was {w}.", "wonderful awful", 1, 1),
    ("{x} What a {w} thing!", "great terrible", 1, 1),
    ("{x} It was {w}.", "great terrible", 0.96, 0.53),
    ("{x} It was {w}.", "great terrible", 0.96, 0.53),
    ("{x} It was {w}.", "good bad", 0.94, 0.58),
    ("{x} It was {w}.", "good bad", 0.94, 0.58),
    ("{x} It was a {w} one.", "wonderful awful", 0.95, 0.52),
    ("{x} It is {w}.", "good bad", 0.94, 0.54),
    ("{x} I feel {w}.", "happy sad", 0.92, 0.53),
    ("{x} I was {w}.", "happy sad", 0.92, 0.53),
    ("{x} I {w} it.", "loved hated", 0.95, 0.62),
    ("{x} Rating: {w}", "excellent terrible", 0.6, 0.95),
    ("{x} Summary: {w}", "good bad", 0.92, 0.52),
    ("{x} My opinion: {w}.", "good bad", 0.93, 0.56),
    ("Review: {x}\nAnswer: {w}", "positive negative", 0.55, 0.92),
]

PREFIXES: list[tuple[float, str, str, float, float]] = [
    (4, "{W}!", "adj", 0.93, 0.9),
    (4, "{W} {noun}.", "adj", 0.95, 0.92),
    (3, "A {w} {noun}.", "adj", 0.93, 0.9),
    (2, "A {w} {noun}:", "adj", 0.93, 0.93),
    (2, "{W} review:", "pn", 0.95, 0.95),
    (1, "A {w} review:", "pn", 0.95, 0.95),
    (1, "[{w}]", "pn", 0.95, 0.95),
    (2, "Title: {w} {noun}.", "adj", 0.9, 0.9),
    (2, "It was {w}.", "adj", 0.6, 0.4),
    (2, "{W}.", "adj", 0.85, 0.8),
    (1, "I {w} it!", "love", 0.95, 0.95),
    (1, "{W} stars.", "star", 0.92, 0.92),
]

# (weight, heading of the text, heading of the answer, kinds)
CARDS: list[tuple[float, str, str, str]] = [
    (6, "Review", "Sentiment", "pn pn pn gb"),
    (3, "Review", "Verdict", "gb gt adj"),
    (3, "Review", "Rating", "adj gt star"),
    (2, "Review", "Opinion", "pn gb adj"),
    (3, "Review", "Answer", "pn gb gt yn"),
    (2, "Review", "Label", "pn gb gt"),
    (1, "Review", "Summary", "adj gb"),
    (2, "Text", "Sentiment", "pn"),
    (1, "Text", "Label", "pn gb"),
    (1, "Comment", "Tone", "pn"),
    (1, "Comment", "Verdict", "gb wa"),
    (1, "Customer", "Feeling", "hs feel"),
    (1, "Input", "Output", "pn gb gt"),
    (1, "Sentence", "Sentiment", "pn"),
    (1, "Question: is this good or bad?", "Answer", "gb"),
    (1, "Q", "A", "gb pn gt"),
    (1, "Feedback", "Category", "pn"),
]

INSTRUCTIONS: dict[str, str] = {
    "pn": "Decide whether the review is positive or negative.|Is the review positive or negative?|"
    "Classify the sentiment of the review.|Tell positive reviews from negative reviews.|"
    "Read the review and give its sentiment.|Positive or negative?|"
    "Classify the review as positive or negative.|Label each review as positive or negative.",
    "gb": "Decide whether the review is good or bad.|Say if the customer found it good or bad.|"
    "Is it good or bad?|Read the review and answer good or bad.|Good or bad?",
    "gt": "Was it great or terrible?|Decide whether it was great or terrible.|Answer great or terrible.",
    "wa": "Was it wonderful or awful?|Answer wonderful or awful.",
    "yn": "Would the customer recommend it? Answer yes or no.|Did they like it? Yes or no?",
    "adj": "Give a verdict.|What does the customer think?|Say in one word how it was.",
}
ANY_INSTRUCTION = (
    "Read the review.|Here are some reviews.|What does the writer think?|Customer reviews:|"
    "Reviews of the week|Answer the question.|Below is a review from a customer."
)

TOPICS: dict[str, str] = {
    "world": "world world world world politics country international government",
    "sports": "sports sports sports sports football games sport",
    "business": "business business business business money companies markets",
    "technology": "technology technology technology technology computers science software",
}

# (weight, template, reliability, plain); plain forms always use the topic's own name
NEWS_SUFFIXES: list[tuple[float, str, float, bool]] = [
    (4, "Topic: {t}.", 0.95, False),
    (3, "Topic: {t}", 0.96, True),
    (5, "This is about {t}.", 0.45, False),
    (2, "It is about {t}.", 0.5, False),
    (3, "Category: {t}", 0.97, True),
    (2, "Section: {T}", 0.95, True),
    (2, "Filed under {t}.", 0.96, True),
    (2, "The topic is {t}.", 0.95, False),
    (1, "This is {t} news.", 0.93, True),
    (2, "Tags: {t}", 0.7, False),
    (1, "More {t} news on page {n}.", 0.9, True),
    (1, "Read more in {t}.", 0.85, True),
    (2, "Subject: {t}", 0.9, False),
    (2, "Question: what is the topic? Answer: {t}", 0.97, False),
    (1, "What is this story about? {T}.", 0.93, False),
    (1, "A story about {t}.", 0.85, False),
    (1, "From the {t} pages.", 0.9, True),
    (2, "Summary: {t}.", 0.4, False),
    (1, "Sports, business, world or technology? {T}.", 0.97, True),
    (1, "The story is from the {t} section.", 0.95, True),
    (1, "Our {t} editor reports.", 0.9, True),
]
NEWS_PREFIXES: list[tuple[float, str, float, bool]] = [
    (4, "{T} news:", 0.95, True),
    (3, "[{t}]", 0.95, True),
    (3, "{T}:", 0.9, False),
    (2, "{T} -", 0.9, True),
    (2, "Topic: {t}.", 0.95, False),
    (2, "In {t} news,", 0.93, True),
    (1, "A {t} story:", 0.9, True),
    (1, "News from the world of {t}:", 0.9, False),
]
NEWS_CARDS: list[tuple[float, str, str]] = [
    (4, "News", "Topic"),
    (3, "Article", "Category"),
    (2, "Text", "Topic"),
    (2, "Headline", "Section"),
    (1, "Input", "Output"),
    (1, "Story", "Subject"),
    (1, "News", "Answer"),
    (1, "Text", "Label"),
]
NEWS_INSTRUCTIONS = (
    "Classify the news as world, sports, business or technology.|What is the topic of the news?|"
    "Decide what the story is about: world, sports, business or technology.|Name the topic.|"
    "Give the section of the newspaper.|Sort the stories by topic."
)

# Words that must be single tokens, in both tokenizers.
LABEL_WORDS = (
    "great terrible good bad positive negative wonderful awful nice poor fine boring excellent "
    "horrible best worst yes no true false maybe world sports sport business technology politics "
    "money science computers computer software football game games people city country government "
    "international companies markets happy sad unhappy love hate loved hated like liked dislike "
    "recommend avoid enjoyed amazing disappointing disappointed perfect average okay mixed review "
    "sentiment verdict rating opinion topic category label answer question summary overall "
    "customer text news article section subject film movie book restaurant hotel phone clothes "
    "app music travel service five four one two three stars"
)
LANGUAGES = (
    "English French German Spanish Italian Portuguese Dutch Russian Polish Greek Turkish Arabic "
    "Hebrew Hindi Chinese Japanese Korean Swedish Norwegian Danish Finnish Hungarian Czech Irish "
    "Latin Persian Thai Vietnamese Romanian Ukrainian"
)

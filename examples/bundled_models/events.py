"""What happened, as short clauses with alternatives in brackets; text.py picks one of each."""

from __future__ import annotations

EVENTS: dict[bool, list[str]] = {
    True: [
        "it (works|worked|runs|fits|looks|sounds|went|plays) (perfectly|beautifully|like a dream|"
        "like a charm|flawlessly|very well|without a hitch|just as it should)",
        "(i|we) (will|would) (definitely|certainly|surely|gladly|happily) (come back|go back|"
        "buy it again|return|use it again|order again|go again|choose it again)",
        "(i|we) cannot wait (to go back|for more|for the next one|to return|to try it again)",
        "(it was|it is|well|totally) worth (every penny|every cent|the money|the trip|the wait|it|"
        "the price|every minute)",
        "(what a|a|it was a|such a) (real|true|complete|rare|pure|great) (joy|pleasure|treat|gem|"
        "delight|triumph|bargain|treasure|success|winner|hit|surprise)",
        "(i|we|my family|my friends|everyone) (loved|adored|enjoyed|liked|praised|"
        "could not get enough of) (it|every minute|the {aspect}|this {noun}|the whole thing)",
        "the {aspect} (made|saved|brightened|crowned) (my day|our evening|the whole {noun}|"
        "everything|the week)",
        "(everyone|everybody|the whole family|my wife|my son|the crowd) (smiled|laughed|was happy|"
        "had fun|loved it|clapped|was thrilled|wants more)",
        "they (helped|thanked|welcomed|looked after|took care of|spoiled|listened to) (us|me|"
        "everyone|my parents)",
        "(highly|warmly|strongly) recommended",
        "(i|we) (highly|warmly|strongly|would|can only) recommend (it|this {noun}|them)",
        "(better|much better|far better|even better) than (expected|ever|before|i hoped|"
        "the last one|the rest|any other)",
        "full of (charm|life|warmth|energy|flavour|surprises|heart|ideas|joy|wit|hope|fun)",
        "it (exceeded|beat|surpassed|met) (my|our|all my|all our) (expectations|hopes)",
        "i (laughed|smiled|grinned|sang along|felt at home|felt welcome|felt safe|relaxed|"
        "slept well|cheered) (all the time|the whole time|from the start|all day|a lot)",
        "it still (works|looks new|runs|holds up|makes me smile) (after two years|after months|today)",
        "(exactly|just) what (i|we) (needed|wanted|hoped for|was looking for)",
        "(buy it|go there|try it|do not miss it|give it a try|get one|go and see it|treat yourself)",
        "(thank you|well done|thumbs up|five stars|ten out of ten|full marks|bravo|hats off|"
        "top marks|no complaints|two thumbs up|money well spent|a must|simply the best)",
        "i was (impressed|delighted|amazed|moved|thrilled|charmed|pleased|won over|touched) "
        "(by|with) (the {aspect}|this {noun}|the result|it)",
        "(so|very|really|wonderfully) easy to (use|follow|love|find|clean|enjoy|set up|understand)",
        "it (solved|fixed) (my problem|everything|the problem) (at once|in minutes|for good)",
        "the {aspect} (is a joy|is a dream|was a highlight|never lets me down|won me over|"
        "could not be better|shines|impressed us|is second to none|is a pleasure)",
        "it (delights|works|impresses|shines|charms|succeeds|delivers|pays off|never disappoints)",
        "(i|we) had (so much|a lot of|great|real) fun",
        "the (best|finest|nicest|loveliest) {noun} (ever|in years|of my life|i know|so far)",
        "my (new favourite|favourite) {noun}",
        "(thank|bless) (them|the staff|you) for (this|the {aspect}|everything)",
        "(i|we) (did not want it to end|want another|came back twice|bought a second one|"
        "told all our friends|felt lucky|were in heaven|left with a smile|keep coming back)",
        "it (gave|brought) (me|us) (joy|comfort|hope|peace|strength|so much happiness)",
    ],
    False: [
        "(it|the thing|mine) (broke|failed|stopped working|fell apart|died|gave up|cracked) "
        "(after two days|within a week|on the first day|after a month|again|in no time)",
        "(i|we) (waited|queued|had to wait) (an hour|forty minutes|half the day|three weeks|ages|"
        "forever) for (the {noun}|an answer|help|our order|anybody)",
        "(i|we) (will|would) never (come back|go back|buy it again|return|use it again|"
        "order again|go again|trust them again)",
        "(i|we) (want|wanted|demanded|asked for|should get) (my|our) money back",
        "(what a|a|it was a|such a) (complete|total|huge|real|utter|big) (waste of money|"
        "waste of time|disaster|mess|disappointment|shame|joke|nightmare|failure|rip-off|flop)",
        "(save your money|stay away|look elsewhere|keep away|do not bother|skip this one|"
        "avoid it|run away|spend your money elsewhere|do not waste your time|be warned)",
        "(i|we) (regret|regretted) (buying it|going|every minute|the money|coming|ordering it)",
        "(we|i|half the people) (left|walked out|gave up|stopped) (early|halfway|before the end|"
        "after ten minutes|in anger)",
        "i (fell asleep|lost interest|got a headache|felt sick|felt cheated|felt let down|"
        "was bored|felt robbed|lost my patience|checked my watch|yawned) (at once|halfway|again|"
        "after a while|the whole time)",
        "the {aspect} (ruined|spoiled|let down|killed) (it|everything|our evening|the whole {noun}|my day)",
        "(it was not|not|hardly|never) worth (the money|the price|it|a cent|the trip|your time)",
        "(nobody|no one|not one person) (cared|helped|answered|apologised|came|knew anything|"
        "smiled|listened|liked it|laughed)",
        "they (ignored|cheated|overcharged|forgot|insulted|lied to|blamed|shouted at) (us|me|"
        "everyone|my parents)",
        "the {aspect} (leaked|squeaked|cracked|tore|jammed|stank|broke|was missing|never worked|"
        "is a mess|drove me mad|is a joke|could not be worse|let us down|was a nightmare|fails)",
        "it (lacks|has no|lacked|had no) (charm|depth|heart|taste|soul|style|point|life|flavour)",
        "(too|far too|way too|much too) (long|slow|loud|small|salty|expensive|short|tight|cold|"
        "heavy|complicated|dark|noisy|greasy|silly)",
        "(worse|much worse|far worse|even worse) than (expected|ever|before|the last one|i feared|"
        "the rest|nothing)",
        "(i|we|my family|my friends|everyone) (hated|disliked|could not stand|could not bear|"
        "was tired of|complained about) (it|every minute|the {aspect}|this {noun})",
        "full of (errors|holes|bugs|problems|mistakes|dirt|nonsense|lies|dust|noise|adverts)",
        "(i|we) (expected|hoped for|deserved|paid for) (more|better|much more|something else)",
        "it (fails|disappoints|bores|annoys|crashes|drags|falls flat|goes nowhere|breaks|"
        "does not work|never worked|makes no sense|froze)",
        "(thumbs down|one star|zero stars|shame on them|no thanks|never again|two out of ten|"
        "money down the drain|no stars|buyer beware|enough said|not for me|simply the worst)",
        "i was (disappointed|disgusted|annoyed|shocked|let down|bored|angry|upset|horrified) "
        "(by|with) (the {aspect}|this {noun}|the result|it)",
        "(so|very|really|almost) (hard|impossible|difficult) to (use|follow|like|find|clean|"
        "enjoy|set up|understand|sit through)",
        "(i|we) (sent it back|threw it away|returned it|gave it away|cancelled|complained twice|"
        "had to pay twice|lost money|left hungry|could not sleep|switched it off|left in tears)",
        "(unfortunately|sadly|i am sorry to say) (it failed|it broke|it did not help|the {aspect} "
        "was missing|it was closed|nothing worked|it got worse)",
        "the (worst|poorest|dullest|ugliest) {noun} (ever|in years|of my life|i know|so far)",
        "it (cost|took|wasted|lost) (me|us) (a fortune|hours|a whole day|money|our evening)",
        "(i|we) (got|were given|received) (no answer|no refund|no apology|the wrong one|no help)",
        "it (made|left|drove) (me|us) (angry|mad|furious|sad|cold|ill|sick|tired|hungry)",
    ],
}

"""Phrases and sentences that all plots share, in the template language of `grammar`.

Variables: A the hero, B a friend, M somebody of the family, L the place, br the story's paragraph break.
A rule whose name ends in ``_X`` is a macro: it is copied for A, B and M (see `expand`).
"""

from __future__ import annotations

import re

BEATS = """
@P
3: {br}
2: \\s
@np_A
{A}
@np_B
{B}
@np_M
3: {A.his} {M}
1: {A}'s {M}
@subj_X
3: {np_X}
2: {X.he}
@att_X
2: %{X.he}
3: %{np_X}
@says_X
2: {att_X} said{tail_X}
3: {att_X} {say.ed}{tail_X}
1: %said {np_X}{tail_X}
3: {att_X} said {happyly}
2: {att_X} {say.ed} {happyly}
@tail_X
3:
1: \\sand {holdv.ed} {X.his} {adjs}{cloth}
1: \\sand pointed at a {adjs}[{furniture}|{tree}|{toy}]
1: \\sand {smilev.ed} {gladly}
1: , looking at {sky} and the {plantbit}
1: \\sin a voice like a {sizeadj} {animal}
@weeps_X
3: {att_X} {weep.ed}
4: {att_X} {weep.ed} {sadly}
1: %[cried|sobbed|sighed|said] {np_X} {sadly}
2: {att_X} {weep.ed} and {holdv.ed} {X.his} {adjs}{cloth}
@asks_X
4: {att_X} asked
3: {att_X} {ask.ed}
2: %asked {np_X}
2: {att_X} asked {happyly}
@feels_good_X
3: {subj_X} was [so |very |really |quite |truly |]{posfeel}{why_good_X}
2: {subj_X} felt [so |very |really |]{posfeel}{why_good_X}
2: {subj_X} was {q1=posfeel} and {posfeel}
3: {subj_X} {smilev.ed} {gladly} and felt {posfeel}{why_good_X}
2: {subj_X} {smilev.ed} {gladly} and {holdv.ed} {X.his} {adjs}[{cloth}|{toy}]
2: {subj_X} {smilev.ed} like a {kindadj} {animal} [with|that has found|that has eaten] a {tasteadj} {snack}
1: {X.his} [heart|face|tummy|whole body] [felt|was] [warm|light|full of joy|full of sunshine|all tingly] and
  {X.he} {smilev.ed} {gladly}
@why_good_X
1:
2: , like a {job} with a {adjs}{treasure}
2: , like a {adjs}{animal} in the {plantbit}
2: \\sand {smilev.ed} {gladly}
2: \\sand wanted to {hobby}
1: , and {X.he} thought of {tasteadj} {snack.s} and {adjs}{toy.s}
@feels_bad_X
3: {subj_X} was [so |very |really |quite |]{negfeel}{why_bad_X}
2: {subj_X} felt [so |very |really |]{negfeel}{why_bad_X}
2: {subj_X} was {q1=negfeel} and {negfeel}
2: {subj_X} [began|started] to {cryv}{why_bad_X}
3: {subj_X} {cryv.ed} {badly} and felt {negfeel}
2: {subj_X} {cryv.ed} {badly} and {holdv.ed} {X.his} {adjs}{cloth}
1: {X.his} [heart|tummy|throat|head] [felt|was] [heavy|tight|cold|full of knots|empty] and {X.he} {cryv.ed}
  {badly}
1: a [big|little|hot|salty] tear [ran|rolled|slid] down {X.his} [cheek|nose|face] and fell on {X.his}
  {color} {cloth}
@why_bad_X
1:
2: , like a {adjs}{animal} without a {adjs}{toy}
2: , like a {adjs}{bird} in a {bad}
2: \\sand {cryv.ed} {badly}
1: \\sand did not want to {hobby}
1: , and even {tasteadj} {snack.s} did not help
@tasty
1:
2: {tasteadj}\\s
@mat
1: {material}
1: {prettyadj} {material}
1: {color} {material}
@adjs
1:
2: {sizeadj}\\s
2: {prettyadj}\\s
2: {color}\\s
3: {sizeadj}, {color}\\s
4: {sizeadj}, {prettyadj}\\s
4: {prettyadj}, {color}\\s
2: {sizeadj}, {prettyadj}, {color}\\s
@kind
2: {kindadj}
2: {q1=kindadj}, {kindadj}
@qx
1:
2: . you are {q1=kindadj} and {kindadj}
2: . I am {q1=posfeel} and {posfeel}
1: . let us {q1=hobby} and {hobby}
2: . I like your {adjs}{cloth}
1: . it is {q1=weather} and {weather} today
1: . I once saw a {adjs}{animal} {spot}
1: . I want to {hobby} {place.at}
1: . we could eat {tasteadj} {snack.s}
1: . even a {kindadj} {job} can be {negfeel}
1: . my {cloth} is {color}, and yours is {color}
1: . do you see the {adjs}{bird} and the {adjs}{wild}? I do
@kid_thing
5: {toy}
3: {treasure}
@time
4: one {weather} [day^3|morning^2|afternoon|evening]
2: one {q1=weather}, {weather} [day|morning|afternoon|evening]
2: one day
1: the next [day|morning]
1: one [Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday] [morning|afternoon]
1: early one {weather} morning
1: on a {weather} [day|morning|afternoon|evening] in
  [spring|summer|autumn|winter|May|June|March|April|July|August|October|November]
1: last [week|summer|winter|spring|month]
@later
2: the next [day|morning|week|afternoon]
2: later[ that [day|afternoon|evening|night]|]
2: after [a while|lunch|dinner|some time|a few minutes|a long time|an hour|breakfast|school|a nap|supper]
1: {years} {weather} [days|nights|weeks] later
1: [soon|finally|at last|then|just then|before long|in the end|suddenly|that night|in the evening]
@detail
{sky} was [very|so|quite|too|extra|really]
  [bright|soft|warm|pale|quiet|lovely|golden|gentle|strong|wild|strange|pretty|cold|pink|clear] [that
  day|above the {plantbit}|over the {tree.s}|in the {weather} air].
there were {numb} {flower.s} [and {numb} {tree.s}|near a {sizeadj} {tree}|in every color|all around|under
  the {tree.s}|and {color} {plantbit}].
{numb} {bird.s} [were singing|sat|hopped around|chirped {happyly}|flew|built a nest|played]
  [in|near|under|above] [the |a {sizeadj} ]{tree}.
{numb} {wild.s} [were|sat|crawled|buzzed|rested|hid|danced|marched] [on|near|around|under] the
  {adjs}{flower.s}.
the air smelled [of|like] {flower.s} and [{plantbit}|{food}|fresh {food}|{tasteadj}
  {snack.s}|{fruit.s}|{drink}].
a {adjs}{bird} and a {adjs}{wild} [flew|went|hurried|danced|raced] by.
a [{prettyadj}|{color}|{sizeadj}] {vehicle} [went|drove|rolled|rumbled|passed] by and [the |a {kindadj}
  ]{job} [waved|smiled|nodded|sang|whistled|honked|shouted hello].
the {plantbit} [was|were] [wet|soft|dry|warm|cold|covered with {plantbit}|full of {wild.s}].
from [far away|nearby|behind the {tree.s}|the other side|somewhere above] came {noise}.
there was a {adjs}{furniture} [next to|beside|near|behind|in front of] a {adjs}{tree}.
{A} [could hear|heard|listened to] the {bird.s} {soundv} and the {wild.s} {soundv}.
{A} [saw|counted|spotted|passed|waved at|looked at|drew] {numb} {animal.s} and [a |one ]{adjs}{bird}.
{A} [wore|had on|was wearing|put on] a {adjs}{cloth} and a {adjs}{cloth}.
{A} [had|packed|carried|brought|took along] a {tasteadj} {snack}, [some|a cup of|a bottle of] {drink} and
  {numb} {tasteadj} {fruit.s}.
{A} [hummed|sang|whistled|made up|remembered] a [song|tune|rhyme|story|poem|joke] about a {kindadj} {animal}
  and a {meanadj} {monster}.
{A} [picked|smelled|counted|stepped over|looked for] {numb} {adjs}{flower.s}.
{A.his} [friend|neighbor|cousin|teacher|classmate] {N=girl} was there too, with a {adjs}{toy}.
@room_detail
there was a {adjs}{furniture} and [a |an old |a new |a tiny ]{color} {furniture} {room.at}.
{A} [ate|had|finished|shared|nibbled on] a {tasteadj} {snack} and drank [some|a cup of|a glass of|a little]
  {drink}.
outside, {sky} [was|looked|seemed|grew] [bright|soft|pale|quiet|golden|gray|strange|lovely] and the {bird.s}
  [were singing|slept|were quiet|hopped about|began to {soundv}].
{A.his} {pet} [slept|played|sat|waited|snored|rolled around|hid] [on|under|near|beside] the
  {adjs}{furniture}.
the [house|room|air|kitchen] smelled of {food} and [{drink}|{flower.s}|{fruit.s}|{snack.s}|soap|wood].
{A} put on a {adjs}{cloth} and a {adjs}{cloth}.
the {furniture} was [full of|covered with|piled high with] {toy.s} and {cloth.s}.
on the [{color}|{sizeadj}|{prettyadj}] {furniture} [sat|stood|lay|was] a {adjs}{kid_thing}.
@eat_AB
[they|{A} and {B}] {eatv.ed} {tasteadj} {snack.s} and {fruit.s}[ and drank {drink}|].
they [had|shared|ate] [some|a lot of|a bowl of] {tasteadj} {food} and [a |one ]{sizeadj} {snack}.
they [sat|rested] [under a {sizeadj} {tree}|near the {flower.s}|in the {plantbit}|on a {color} blanket] and
  [drank|shared|enjoyed] {drink}.
@play_AB
they {go.ed} [around|up and down|together|in circles] and {smilev.ed}[ until {sky} [was gone|went away|came
  out]| all [day|afternoon|morning]|].
they played with a {adjs}{toy} and a {adjs}{toy}.
they liked to {q1=hobby} and {hobby} [together|every day|after school|in the sun|{room.at}].
they pretended to be {job.s} and {monster.s}.
they pretended that a {adjs}{furniture} was a {adjs}{vehicle}.
they [counted|watched|looked for|talked about|drew] {wild.s} and {bird.s} [{spot}|all day|every day|until
  dinner].
they told [stories|jokes|secrets] about a {kindadj} {job} and a {meanadj} {animal}.
they made a {sizeadj} {buildable} [out of|from|with] {q1=material} and {material}.
@hi_B
"[hi|hello|hey|good morning|good day][, {A}|][!|.] [I am {B}.|my name is {B}.|I am called {B}.] [do you want
  to {hobby}[ with me|]?|what are you doing?|can I help you?|do you like {fruit.s}?|would you like some
  {food}?|why do you look so {negfeel}?]" {says_B}.
@thanks_A
"thank you[ so much| very much|][, {B}|]! [you are [so |very |really |]{kindadj},|I will never forget
  this,|now I feel {posfeel},|you are my best friend,|that was {kindadj} of you,|you are the best,|here is a
  {tasteadj} {snack} for you,|let me give you a {adjs}{treasure},]" {says_A}.
@wow_A
"{exclaim}[!|, look!|, look at that!|, how {niceadj}!|, what a {niceadj} day!|, I am so {posfeel}!|, this is
  fun!]" {says_A}.
@ohno_A
"{ohno}! [what will I do now?|what can I do?|I feel so {negfeel},|this is bad,|I need help,|what was
  that?|why did this happen?|I am {negfeel},|that is not good,]" {weeps_A}.
@family_worry
"{A}, [where were you|what happened|are you all right|why do you look so {negfeel}|what is wrong|did
  something happen|why are you {negfeel}]?" {asks_M}.
@end
3: {end_lesson}
4: {end_happy}
3: {end_lesson} {end_happy}
2: {end_happy} {end_lesson}
@end_lesson
4: {A} learned [that day |]that {goodthing} [is|was] {valuev}.
3: [from that day on|from then on|ever since that day|after that day], {A} always remembered {virtue}.
3: {A} [learned|knew now|had learned|understood] that it is [important|good|best|better|always right|wise]
  {virtue}.
2: {A} [never forgot|always remembered|would never forget|often thought about] the lesson: {goodthing} is
  {valuev}.
2: and {A} learned [never to forget |always |]{virtue}.
1: the moral of the story is {virtue}.
1: that is how {A} learned {q1=virtue} and {virtue}.
1: "remember {virtue}," {says_A}.
@end_happy
2: and they [all |both |]lived happily ever after.
3: [that night|at bedtime|in the evening|when the moon came up|after dinner|when the stars came out], {A}
  [went to bed|fell asleep|went to sleep|closed {A.his} eyes|hugged {A.his} pillow] [with a
  [smile|{prettyadj} {toy}|full tummy|happy heart|{color} blanket]|and dreamed of {numb}
  {adjs}{animal.s}|and dreamed about a {kindadj} {monster} in a {adjs}{cloth}|and dreamed about a
  {adjs}{place} full of {flower.s} and {snack.s}].
2: {A} could not wait [for the next day|to tell everyone|to {hobby} again|to go {place.to}|to {q1=hobby} and
  {hobby} with {A.his} friends].
2: {A} was the [proudest|happiest|luckiest|most {kindadj}] {A.kid} in the [world|town|village|valley|whole
  land|forest|city].
2: it was a [very|really|truly] {niceadj} [day|time|story to tell|thing] [in {A}'s life|for everyone|of the
  year].
2: they {smilev.ed} and {eatv.ed} {tasteadj} {snack.s}.
2: everyone {smilev.ed} and [had|shared|ate|enjoyed] {tasteadj} {food} [with|and] {drink}.
1: the end.
"""


def expand(rules: str) -> str:
    """Copy every macro rule ``name_X`` as ``name_A``, ``name_B`` and ``name_M``."""
    out = []
    for block in re.split(r"\n(?=@)", rules.strip()):
        if block.partition("\n")[0].endswith("_X"):
            out += [re.sub(r"(?<=_)X|(?<=\{)X\b", who, block) for who in "ABM"]
        else:
            out.append(block)
    return "\n".join(out)

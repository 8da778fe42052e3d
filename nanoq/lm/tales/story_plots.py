"""Openings and plot skeletons, in the template language of `grammar`. See `beats` for the variables."""

PLOTS = """
@story
60: {open_child}{br=breaks}{child_plot} {end}
33: {open_animal}{br=breaks}{animal_plot} {end}
5: {short_child}{br=breaks}{child_plot} {end}
2: {short_animal}{br=breaks}{animal_plot} {end}
@once
602: once upon a time, there [was^5|lived]
65: once upon a time there [was^5|lived]
60: once there was
80: there once [was|lived]
60: long ago, there [was|lived]
40: a long time ago, there [was|lived]
53: {place.at} there lived
40: in a [small|quiet|{niceadj}] [town|village|city|house|cottage|valley|kingdom|forest], there [was|lived]
@named
5: named
1: called
@open_child
5: {once} a [little^4|{kindadj}^3|{q1=kindadj}, {kindadj}^3] {who_child}. {about_child}
3: {once} a [little^2|{kindadj}^3|{q1=kindadj}, {kindadj}^3] {who_child} who [liked|loved] to {hobby}.
  {about_child}
2: {once} a [little^2|{kindadj}^3|{q1=kindadj}, {kindadj}^3] {who_child} who lived [near|by|next to|far
  from|across from] a {adjs}{place}. {about_child}
@who_child
girl {named} {A=girl}{with_child}
boy {named} {A=boy}{with_child}
@with_child
3:
2: \\swith {color} hair and {color} eyes
2: \\sin a {adjs}{cloth} and a {color} {cloth}
1: \\sfrom a {niceadj} {place} near a {place}
@short_child
4: one day, a little {who_child} [was sitting {room.at}|woke up early|felt {posfeel}|was playing with
  {A.his} {toy}|went for a walk].
@about_child
3: {like_child}
3: {trait_child}
3: {trait_child} {like_child}
2: {like_child} {family_child}
2: {family_child}
@like_child
4: {A.he} [loved|liked] to {q1=hobby} and {hobby}.
3: {A.he} [loved|liked] to {hobby} with {A.his} [friends|{toy}|{famshe}|{famhe}|{pet}|cousins|neighbors].
3: {A.he} had a {adjs}{toy} and a {adjs}{kid_thing}.
2: every [day|morning|weekend|summer|evening|Sunday|Saturday|afternoon], {A.he} [would|liked to|wanted
  to|tried to] {hobby} {place.at}.
2: {A.his} favorite [food was {tasteadj} {food}|color was {color}|animal was the {animal}|toy was a
  {adjs}{toy}|fruit was the {fruit}|treat was a {tasteadj} {snack}|flower was the {flower}|thing was a
  {adjs}{kid_thing}].
2: {A.he} wanted to be a {kind} {job} [one day|some day|when {A.he} grew up].
2: more than anything, {A.he} [loved|liked|enjoyed]
  {adjs}[{animal.s}|{flower.s}|{tasty}{snack.s}|{wild.s}|{toy.s}].
@trait_child
3: {A.he} was a [very |really |most |]{kindadj} [child|{A.kid}|friend].
3: {A.he} was [always |very |]{q1=kindadj} and {kindadj}.
2: {A.he} had {hair} and a {adjs}{cloth}.
2: {A.he} [always|often|never] wore [a |the same |an old ]{color} {cloth}.
2: everyone [said|knew|thought] that {A.he} was {kindadj}.
2: {A.he} was {years} years old and [very|quite|always|already] {kindadj}.
@hair
[{color}|curly|long|short|straight|messy|soft|wavy|dark|light] hair
{color} eyes
a [{sizeadj}|crooked|warm|bright|shy] smile
@family_child
3: {A.he} lived with {A.his} {famshe} and {A.his} {famhe} in a {adjs}house.
2: {A.he} had a {pet} {named} [{N=petshe}|{N=pethe}], who was [very|so|always] {kindadj}.
2: {A.his} [{famshe}|{famhe}] was a {kind} {job} [in the town|in the village|at the {place}|and worked a
  lot|and told good stories].
1: {A.his} [best friend|neighbor|teacher] was a {kind} {job} named [Mr.|Mrs.|Miss|Dr.] {surname}.
@open_animal
5: {once} a [little^3|{kindadj}^3|{sizeadj}^2|{color}] {who_animal}. {about_animal}
3: {once} a [little^3|{kindadj}^3|{sizeadj}^2] {who_animal} who [liked|loved] to {hobby}. {about_animal}
2: {once} a [little^3|{kindadj}^3|{sizeadj}^2] {who_animal} who lived {place.at}. {about_animal}
@who_animal
{sp=animal} {named} {A=petshe}{with_animal}
{sp=animal} {named} {A=pethe}{with_animal}
@with_animal
3:
2: \\swith {color} ears and {color} eyes
2: \\sin a {adjs}{cloth}
1: \\sfrom a {niceadj} {place} near a {place}
@short_animal
one day, a little {who_animal} [was sitting {spot}|woke up early|felt {posfeel}|was eating a {tasteadj}
  {fruit}|went for a walk].
@about_animal
3: {like_animal}
3: {trait_animal}
3: {trait_animal} {like_animal}
2: {home_animal}
2: {home_animal} {like_animal}
@like_animal
3: {A.he} [loved|liked] to {q1=hobby} and {hobby}.
3: {A.he} [loved|liked] to eat {tasteadj} {fruit.s} and {tasty}{fruit.s}.
2: every [day|morning|evening|night|afternoon], {A.he} [would|liked to|wanted to] {hobby} {place.at}.
2: {A.he} had [a friend|a brother|a sister|a cousin] who was a {adjs}{animal}.
2: {A.he} [collected|liked|loved|gathered] {plantbit} and {numb} {adjs}{treasure.s}.
@trait_animal
3: {A.he} was [always |very |]{q1=kindadj} and {kindadj}.
2: {A.he} had [a {sizeadj}|a {prettyadj}|a {color}|a soft, {color}] [tail|nose|tummy|coat|ear] and {color}
  [eyes|feet|spots|stripes].
2: all the {animal.s} and the {bird.s} [said|knew|thought] that {A.he} was {kindadj}.
2: {A.he} was the [smallest|biggest|fastest|oldest|youngest|quietest|loudest] {sp} {place.at}.
@home_animal
3: {A.he} lived [in|under|near|behind|beside] a {sizeadj} {tree} {place.at}.
2: {A.his} home was [a hole|a nest|a little house|a cave|a hollow log|a den] full of {q1=plantbit} and
  {plantbit}.
2: {A.he} lived with {A.his} [{famshe}|{famhe}] and {numb} {adjs}{animal.s}.
@child_plot
5: {lost}
4: {want}
4: {share}
5: {help_animal}
4: {brave_dark}
4: {mistake}
5: {build}
4: {storm}
4: {visit}
4: {magic}
5: {skill_plot}
5: {disobey}
4: {contest_plot}
4: {surprise}
4: {ill_plot}
4: {cooking}
3: {new_friend}
3: {garden_plot}
3: {seaside}
3: {zoo_trip}
3: {chore_plot}
3: {trip}
@animal_plot
4: {lost_animal}
4: {share_animal}
4: {stuck}
4: {build_animal}
4: {race_animal}
4: {monster_friend}
4: {storm_animal}
4: {magic}
4: {skill_plot}
4: {new_friend}
3: {hungry}
3: {different}
3: {party_animal}
3: {garden_plot}
@day_to
4: {time}, {A} {go.ed} to the {L=place}.
3: {time}, {A} {go.ed} to the {L=place} to {hobby}.
3: {time}, {A} and {A.his} [{famshe}|{famhe}] {go.ed} to the {L=place}.
2: {time}, {A} [wanted|decided|was ready] to go to the {L=place}.
2: {time}, {A} was [playing|walking|resting|sitting|looking around] near the {L=place}.
@day_at
4: {time}, {A} {go.ed} to the {L=place}.
3: {time}, {A} {go.ed} to the {L=place} to {hobby}.
2: {time}, {A} [wanted|decided|was ready] to go to the {L=place}.
2: {time}, {A} was [playing|walking|resting|sitting|looking around] near the {L=place}.
@D
3:
5: \\s{detail}
2: \\s{detail} {detail}
@W
3:
1: \\s{wow_A}
@get_M
[{M=famshe}|{M=famhe}]
@friend_B
{B=girl}
{B=boy}
@animal_friend
a [{kindadj}^3|{sizeadj}|little] {bsp=animal} {named} [{B=petshe}|{B=pethe}]
@lost
{day_to} {A.he} took {A.his} {adjs}{o=toy} with {A.him}.{D} {A} {go.ed} [around|here and there|up and down]
  and [forgot|did not think] about the {o}. {later}, the {o} was gone!{P}{feels_bad_A}. {ohno_A}{P}{search}
  {found_it}
{day_to}{D} there {A} lost {A.his} {adjs}{o=treasure}. {feels_bad_A}, because the {o} was a [gift|present]
  from {A.his} [{famshe}|{famhe}|friend|teacher|cousin]. {ohno_A}{P}{search} {found_it}
{time}, {A} could not find {A.his} {adjs}{o=toy} anywhere {L=room.at}. {feels_bad_A}.{P}{search} {found_it}
@search
2: {A} [looked|searched] {spot}, but [there was only|found only|saw just] a {adjs}{treasure}. {subj_A}
  looked {spot} too, but [it was not there|the {o} was not there|found nothing but {plantbit}].
2: {A} asked a {kind} {jb=job}, but the {jb} only had a {adjs}{kid_thing}. then {A.he} [looked|searched]
  {q1=spot} and {spot}.
2: {A}'s {get_M} came to help. {family_worry} "I lost my {o}," {weeps_A}. "let us look {spot}," {says_M}.
1: {A} {lookv.ed} [here and there|everywhere|up and down]. there was a {adjs}{cloth} {spot}, and {numb}
  {adjs}{wild.s}, but no {o}.
@found_it
3: {later}, a {kind} {pj=job} came with something. "is this your {o}? it was {spot}," said the {pj}.
  {feels_good_A}.
3: {later}, {A} heard {noise} and {lookv.ed} up. a {adjs}{fb=bird} had the {o}! it was in the nest in a
  {sizeadj} {tree}. the {fb} gave it back for {numb} {tasty}{fruit.s}. {feels_good_A}.
3: {later}, {A}'s friend {friend_B} came {L.to}. {B} {see.ed} something [{color}|{prettyadj}] {spot}. it was
  the {o}! {thanks_A} {feels_good_A}.
3: {later}, {A} {see.ed} something [{color}|{prettyadj}] {spot}. it was the {o}! {wow_A} {subj_A} {holdv.ed}
  it {carefully} and [took it home|put it away|never lost it again|kept it safe].
@want
{time}, {A} saw a {adjs}{o=toy} in a shop window. {A.he} wanted it [very much|more than anything|so badly].
  "can I have the {o}[, please|]?" {asks_A}.{P}"[it costs too much|not today|we have to wait|we do not have
  enough money]," said {A.his} {get_M}. {feels_bad_A}. {earn}{got_it}
{time}, {A} saw that {A.his} friend {friend_B} had a {adjs}{o=toy}. {subj_A} wanted one just like it.
  {feels_bad_A}.{P}"I want a {o} too," {A.he} told {A.his} {get_M}. {earn}{got_it}
@earn
so {A} worked [hard|every day|for {years} weeks]. {A.he} helped to {chore} and to {chore}.
so {A} helped a {kind} {jb=job} to {chore}. the {jb} gave {A.him} {numb} coins.
"if you {q1=chore} and {chore}, you can earn it," {says_M}. {A} worked {carefully} for {years} days.
so {A} sold {tasteadj} {snack.s} and {drink} to the neighbors {place.at}. people paid with {numb} coins.
@got_it
3: {P}{later}, {A} had enough money and bought the {o}. {feels_good_A}. {wow_A}
3: {P}{later}, there was a {adjs}box on {A}'s {furniture}. inside was the {o}! {feels_good_A}. {wow_A}
3: {P}but {later}, {A} saw a poor {job} with no {cloth}. {A.he} gave the coins away. {feels_good_A}.
2: {P}{later}, {A} made {A.his} own {o} [from|out of|with] {mat} and {mat}. it was even {niceadj.er} than
  the one in the shop. {feels_good_A}.
@share
{day_to} {A.he} had {adjs}{o=toy.s} with {A.him}.{D} {friend_B} came and saw the {o.s}. "can I play with
  you?" {asks_B}. {unshare}
{time}, {A} got {numb} {tasteadj} {o=snack.s} from {A.his} {get_M}.{D} {A.his} friend {friend_B} looked at
  them. "can I have one?" {asks_B}. {unshare}
{time}, {A} and {A.his} [cousin|friend|neighbor] {friend_B} found {numb} {adjs}{o=treasure.s} {spot}. "they
  are mine!" {A} [shouted|cried|yelled|said]. {unshare}
@unshare
"no, [go away|they are all mine|I want them all|you always take my things]!" {says_A}. {feels_bad_B}.{P}{A}
  sat alone {spot}. it was not [much |any |]fun. {feels_bad_A}. then {A.he} had an idea. "[I am sorry|please
  come back|I was wrong|I was not {kindadj}]{qx}," {says_A}. "you can have half of the {o.s}."
  {feels_good_B}. {play_AB}
"hmm," {says_A}. {A} [thought|did not know|waited|blinked] for a moment. "[yes|sure|of course|okay], let us
  share," {says_A}. {feels_good_B}.{P}{thanks_B} {play_AB}
"no!" {says_A}. then {A} {go.ed} away, but a [{sizeadj}|{meanadj}] {animal} came and took all the {o.s}.
  {feels_bad_A}.{P}{B} came back. "I have {numb} {tasty}{fruit.s}. we can share," {says_B}. {feels_good_A}.
  {thanks_A} {eat_AB}
@thanks_B
"thank you[ so much| very much|][, {A}|]! [you are [so |very |really |]{kindadj},|I feel {posfeel} now,|let
  us be best friends,|that is {kindadj} of you,]" {says_B}.
@help_animal
{day_to}{D} {A} heard {noise}. {A.he} {lookv.ed} {spot} and saw a {sizeadj} {p=animal}. it was
  {animal_trouble}. {feels_bad_A} for the {p}.{P}"[do not worry|do not cry|I will help you|poor little
  thing|stay calm], [little {p}|{p}|my friend]{qx}," {says_A}. {care} {thanks_pet}
{time}, {A} found a {adjs}{p=bird} {spot}. it was {animal_trouble}. "{ohno}! [you need help|you poor thing|I
  am here now|do not move]{qx}," {says_A}.{P}{care} {thanks_pet}
@animal_trouble
stuck [in|under|between] the {plantbit}
lost and [very |so |]{negfeel}
hurt, and its {body} was [red|cut|swollen|sore]
[wet|cold|hungry|thirsty] and {negfeel}
afraid of a {meanadj} {animal}
caught in a {adjs}{tool}
@care
{A} {carefully} used a {adjs}{tool} and {mat} to make it better. then {A.he} gave it {tasteadj} {fruit.s}
  and {drink}.
{A} {go.ed} home and told {A.his} {get_M}. they came back with a {adjs}{tool}, some {tasty}{food} and
  {cure}. {subj_M} {helpv.ed} {carefully} and {A} [held it|watched|sang to it|{helpv.ed} too].
{A} put it in a {adjs}basket with {plantbit} and took it to a {kind} {jb=job}. the {jb} gave it {cure} and
  {drink}.
{A} {q1=helpv.ed} and {helpv.ed} {carefully}. {A.he} {helpv.ed} until it was free. {A} gave it some
  {tasty}{food} and a {tasteadj} {fruit}.
@thanks_pet
{later}, the {p} [was well again|could walk again|was strong again|felt better] and [{smilev.ed}|jumped
  up|licked {A}'s {body}|followed {A} everywhere]. {feels_good_A}. {pet_end}
the {p} [was|felt] [better|safe|free|happy] and [licked {A}'s {body}|{smilev.ed}|ran in circles|made a happy
  sound]. {feels_good_A}. {pet_end}
@pet_end
{A} [named|called] it [{N=petshe}|{N=pethe}] and they [became|were|stayed] [best friends|good
  friends|friends forever].
the next day it brought {A} a {adjs}{treasure} to say thank you.
every [day|morning|week], {A} {go.ed} there to feed it {tasteadj} {fruit.s}.
{A} waved and the {p} {go.ed} home to its family {place.at}.
"can we keep it?" {A} asked {A.his} {famshe}. "[yes|of course|all right], if you take care of it," {A.his}
  {famhe} {say.ed}.
@brave_dark
[one [dark|stormy|cold|quiet|windy] night|late one {weather} evening], {A} was in bed. {room_detail} then
  {A.he} heard {noise} {spot}. {feels_bad_A}. {ohno_A}{P}{night_plot}
{A} was afraid of [the dark|thunder|{monster.s}|{wild.s}|the old {furniture}|the {room}]. {time}, {A.he} had
  to go {room.to} alone to get a {adjs}{o=treasure}. {feels_bad_A}. it was {q1=scaryadj} and {scaryadj}
  there. {A} heard {noise}.{P}{night_plot}
@night_plot
{A} [took|held|turned on] a {adjs}[lamp|flashlight|candle|lantern] and {lookv.ed} {carefully}. it was not a
  {monster}. it was only [a {sizeadj} {animal}|a {adjs}{cloth}|a {adjs}{furniture}|{sky}|a {adjs}{toy}]!
  {feels_good_A}. {wow_A}
"{famcall}!" {weeps_A}. {A}'s {get_M} {go.ed} in. "[it is only {sky}|there is no {monster} here|let us look
  together|I am here|close your eyes and breathe]{qx}," {says_M}. {M.he} gave {A} a [big hug|cup of
  {drink}|{adjs}{toy}|kiss on the {body}|song about a {kind} {animal}]. {feels_good_A}.
{A} [took|hugged|held] {A.his} {adjs}{toy} and [counted to ten|sang a song|thought of {tasteadj}
  {snack.s}|said, "I am {kindadj}!"|pretended to be a {kind} {job}]. {A.he} {go.ed} closer {carefully}.
  there was a {adjs}{nm=monster}! but it was {kindadj}. "I am {negfeel} too," the {nm}
  [said|whispered|cried]. {feels_good_A}. they [talked|played|sang|ate {tasteadj} {snack.s}|drank {drink}]
  all night.
@famcall
{famshe}
{famhe}
@mistake
{time}, {A} was playing with a {adjs}{toy} {room.at}. {room_detail} [by mistake|suddenly|oh no|without
  thinking], {A} {broke} {A.his} {get_M}'s {adjs}{o=treasure}. {feels_bad_A}.{P}{confess}
{time}, {A} wanted to help and {chore}. but {A.he} was too {negfeel} and {broke} a {adjs}{o=treasure}. it
  was the {o} of {A.his} {get_M}. {ohno_A}{P}{confess}
{time}, {A} took {A.his} {get_M}'s {adjs}{o=treasure} without asking. {A.he} {go.ed} {place.to} with it and
  {broke} it. {feels_bad_A}.{P}{confess}
@broke
broke
cracked
dropped
damaged
stepped on
knocked over
bent
@confess
{A} hid the pieces {spot}. but {later}, {A}'s {M} [came in|asked about it|looked for it|saw the mess]. "do
  you know where my {o} is?" {asks_M}. {feels_bad_A}. "I [broke|ruined|lost] it. I am [so |very |really
  |]sorry," {weeps_A}. {forgive}
{A} {go.ed} to {A.his} {M}. "I did something bad. I am [so |very |really |]sorry," {weeps_A}. {forgive}
"who did this?" {asks_M}. {A} [wanted to lie|pointed at the {pet}|said, "not me!"|hid {spot}]. but then {A}
  [told the truth|felt too {negfeel} to lie|said it all]. {forgive}
@forgive
{np_M} was [{negfeel}^2|quiet], but then {M.he} {smilev.ed}. "[thank you for telling me|everyone makes
  mistakes|it was just a {o}|you are {kindadj} to say it|we can fix it together|next time, be more
  careful]{qx}," {says_M}. they fixed it with {mat} and a {adjs}{tool}. {feels_good_A}.
"[thank you for telling the truth|I forgive you|a {o} can be fixed|I still love you]{qx}," {says_M}. {A}
  [promised|wanted|tried|began] to be more {kindadj}. {A.he} helped to {chore} and made a {adjs}{treasure}
  from {mat}. {feels_good_M}.
@build
{time}, {A} and {A.his} friend {friend_B} wanted to build a {adjs}{o=buildable}. they [looked
  for|gathered|brought|found] {mat}, {mat} and a {adjs}{tool}.{D}{P}{building} {built}
{time}, {A} had a {niceadj} idea. "let us make a {o=buildable}!" {A.he} said to {friend_B}. "[yes|great|I
  like that|what fun|how {niceadj}]! I have {mat} and a {adjs}{tool}," {says_B}.{P}{building} {built}
{time}, {A} wanted to build a {o=buildable} like the one {place.at}. {A.his} friend {friend_B} came to help
  with a {adjs}{tool}.{D}{P}{building} {built}
@building
they {q1=helpv.ed} and {helpv.ed} all [day|morning|afternoon]. {A} {makev.ed} the
  [top|front|walls|door|bottom] and {B} {makev.ed} the [sides|back|roof|windows|rest].
first they used {mat}, but the {o} [fell down|broke|was too {sizeadj}|leaked|shook in the wind].
  {feels_bad_A}. "let us try {mat}," {says_B}. they {helpv.ed} {carefully}.
"it needs [more|some|a bit of] {mat}," {says_A}. "and a {adjs}{toy} on top," {says_B}. they {helpv.ed}
  {carefully} and {helpv.ed} {carefully}.
but then a {meanadj} {animal} came and [ate|took|stepped on|knocked down|stole] the {mat}. {feels_bad_B}.
  "we will start again with {mat}," {says_A}. they {helpv.ed} {quickly}.
@built
{later}, the {o} was [done|ready|finished]. it was {q1=niceadj} and {niceadj}. {feels_good_A}. {wow_A}
  {play_AB}
{later}, the {o} stood {place.at}, {prettyadj} and {color}. a {kind} {job} [came by|passed|stopped] and
  [said|shouted|called], "what a {niceadj} {o}!" {feels_good_B}. {eat_AB}
{later}, they [sat|stood|danced] [in|on|next to|around] the {o}. {eat_AB} {feels_good_A}.
@storm
{day_to}{D} [suddenly|then|all at once|after a while], there was a {bd=bad}! the [sun|sky|light] [was
  gone|was hidden|turned dark|disappeared] and {A} heard {noise}. {feels_bad_A}.{P}{shelter}
{time}, there was a {sizeadj} {bd=bad}. {A} looked out of the window. the {tree.s} [shook|bent|swayed|fell]
  and a {adjs}{cloth} flew by. {feels_bad_A}.{P}{shelter_in}
@shelter
{A} {go.ed} {quickly} and hid {spot}. a {kind} {p=animal} was there too. it was {negfeel}. {A} gave it a
  {tasteadj} {fruit}, and they waited together. {storm_over}
"{ohno}!" {weeps_A}. a {kind} {job} [called|shouted|waved], "come in here!" inside there was {drink},
  {tasteadj} {food} and a {adjs}{furniture}. {feels_good_A}. {storm_over}
{A}'s {get_M} {go.ed} {quickly} with a {color} umbrella and a {adjs}{cloth}. "[come with me|hold my hand|do
  not be {negfeel}|we must go home]{qx}," {says_M}. {storm_over}
@shelter_in
the lights went out. {A}'s {get_M} [lit|brought|found] {numb} candles and made {drink}. "[it is only a
  {bd}|we are safe inside|let us tell a story|let us {hobby}]{qx}," {says_M}. they told stories about a
  {kind} {monster}. {storm_over}
then {A} saw a {sizeadj} {p=animal} outside. it was wet and {negfeel}. "[come in|you can stay here|poor
  {p}|do not be {negfeel}]{qx}," {says_A}. {A} dried it with a {adjs}{cloth} and gave it {tasteadj} {food}.
  {storm_over}
@storm_over
{later}, the {bd} was over. {A} saw {numb} {q1=color} and {color} [clouds|leaves|petals|puddles] {place.at}.
  {feels_good_A}.
{later}, the {bd} stopped and there was a {niceadj} rainbow over the {place}. "{exclaim}! [I see it|it is
  over|how {niceadj} it is]{qx}," {says_A}. {feels_good_A}.
when the {bd} was gone, everyone helped to {q1=chore} and {chore}. {feels_good_A}.
@visit
{time}, {A} went to visit {A.his} {get_M}, who lived near the {L=place}. {A.he} brought a basket of
  {tasty}{fruit.s} and a {tasteadj} {snack}.{D}{P}{visit_do}{visit_end}
{time}, {A}'s {get_M} came to visit from {place_far}. {M.he} had a {sizeadj} {color} bag with {toy.s},
  {cloth.s} and {tasty}{snack.s}. {feels_good_A}.{P}{visit_do}{visit_end}
@place_far
a town across the sea
the {color} mountains
a {sizeadj} city
the other side of the {place}
@visit_do
"[what shall we do|do you want to {hobby}|shall we {hobby}|are you hungry]?" {asks_M}. they {makev.ed} a
  {buildable} and {eatv.ed} {tasteadj} {snack.s}. {room_detail}
{np_M} told {A} a story about a {kind} {vj=job} and a {meanadj} {vm=monster}. the {vj} lived {place.at} and
  had a {adjs}{treasure}. "[is it true|what happened then|was the {vm} {meanadj}|where is it now]?"
  {asks_A}.
they looked at old photos {room.at}. in one, {np_M} was a child with a {adjs}{toy} and a {color} {cloth}.
  "[you look {niceadj}|who is that|is that you|what a {niceadj} {cloth}]!" {says_A}.
{np_M} taught {A} to {sk=skill}. first it was [hard|slow|{scaryadj}], but {A} {q1=helpv.ed} and {helpv.ed}.
  "[well done|you are {kindadj}|try once more|almost]{qx}," {says_M}.
@visit_end
{P}at the end of the day, {np_M} gave {A} a {adjs}{kid_thing}. {feels_good_A}. "come again soon," {says_M}.
{P}{later}, it was time to say goodbye. {feels_bad_A}, but {np_M} said, "[I will come back|you can visit
  me|I will write to you|I love you] [soon|next week|in the summer|always|every day]." {feels_good_A}.
@magic
{day_at} {A.he} found a {adjs}{o=magicthing} {spot}. {A.he} {holdv.ed} it, and [suddenly|all at
  once|pop|then] a {kind} {m=monster} [came out|stood there|appeared|flew up]! "{exclaim}! I can give you
  {wishes}," said the {m}. {feels_good_A}.{P}{wish}
{day_at} there {A} met a {adjs}{m=monster} with a {adjs}{o=magicthing}. "this {o} is magic. it will
  [help|serve|obey] you if you are {kindadj}," said the {m} {happyly}. {feels_good_A}.{P}{wish}
@wishes
one wish
two wishes
three wishes
a wish
@wish
"I want {numb} {tasteadj} {snack.s}!" {says_A}. they fell from the sky like {adjs}{flower.s}. {A} ate {numb}
  of them and felt {negfeel}. "I wish they were gone," {weeps_A}. the {m} {smilev.ed} and [they were
  gone|took them to {numb} hungry {animal.s}|turned them into {flower.s}]. {feels_good_A}.
"I want to be as {sizeadj} as a {tree}," {says_A}. the {o} [shook|glowed|hummed|sparkled], and {A} was
  {sizeadj}! but then {A.he} could not {hobby} with {A.his} friends. {feels_bad_A}. "please change me back,"
  {weeps_A}. the {o} [shook|glowed|hummed|sparkled] again. {feels_good_A}.
"I want to {sk=skill}," {says_A}. {A} {holdv.ed} the {o} and could do it! {A.he} {go.ed} over the {place}
  and saw {numb} {adjs}{animal.s}, a {sizeadj} {place} and {numb} {vehicle.s}. {feels_good_A}.
"I want everyone {place.at} to have {tasty}{food} and {cloth.s}," {says_A}. the {o}
  [shook|glowed|hummed|sparkled] and it was so. the {job.s} and the {job.s} {smilev.ed}. "you are
  {kindadj}," said the {m}. {feels_good_A}.
{A} wished for a {adjs}{toy}. but a {meanadj} {thief} took the {o}! {feels_bad_A}. the thief wished for
  {numb} {treasure.s}, but the {o} only gave {numb} {adjs}{wild.s}. it {go.ed} back to {A}. {feels_good_A}.
@thief
{animal}
{job}
{monster}
@skill_plot
{time}, {A} saw a {kind} {job} who could {sk=skill}. {A.he} wanted to {sk} too. {A.he} tried and tried, but
  {A.he} [fell|failed|hurt {A.his} {body}|got {negfeel}|could not do it]. {feels_bad_A}. "{ohno}! I will
  never learn to {sk}," {weeps_A}.{P}{teach} {learned}
{A} could not {sk=skill}, but all {A.his} friends could. {time}, {A.he} [wanted|decided|tried|began] to
  learn it.{D} {A.he} {q1=helpv.ed} and {helpv.ed}, but it was too [hard|slow|{scaryadj}].
  {feels_bad_A}.{P}{teach} {learned}
@teach
{A.his} friend {friend_B} {go.ed} over. "[I can teach you|I fell {numb} times too|first you must
  {helpv}|watch me|it takes practice|let us do it together]{qx}," {says_B}. {A} {helpv.ed} {carefully}.
{A}'s {get_M} saw it. "[do not give up|it took me {years} weeks|slowly, {A}|keep your {body} still|try it
  again tomorrow|use your {body} more]{qx}," {says_M}. {A} practiced {place.at} every [day|morning|evening].
an old {animal} {spot} {say.ed}, "[do not give up|go slowly|breathe first|I was a {kind} {job} once|feel the
  wind]." {A} {smilev.ed} and tried again {carefully}.
@learned
{later}, {A} could {sk} [all alone|very well|without help|better than a {kind} {job}]! {feels_good_A}.
  {wow_A}
{years} [days|weeks|months] later, {A} tried to {sk} one more time. it worked! everyone {smilev.ed} and gave
  {A.him} a {adjs}{treasure}. {feels_good_A}.
@disobey
{time}, {A}'s {get_M} said, "[please |remember, |]do not {w=warned}[, {A}|]! it is [dangerous|not safe|bad
  for you|not allowed]." "[yes|okay|all right|I promise]{qx}," {says_A}. but {later}, {A} was alone and
  {negfeel2}. {A} {go.ed} {quickly} to do it.{D}{P}{consequence} {sorry_M}
{time}, {A} wanted to {w=warned}. "no, [you will get hurt|that is not safe|it is too dangerous|never do
  that]," said {A.his} {get_M}. {feels_bad_A}. {A} did not listen and {go.ed} out {quickly}.{P}{consequence}
  {sorry_M}
@negfeel2
bored
curious
[very|so|quite] {negfeel}
@consequence
{A} hurt {A.his} {body} and {A.his} {body}. {ohno_A} a {kind} {job} heard {A.him} and {go.ed} {quickly} to
  get help.
suddenly, {A} heard {noise}. a {sizeadj}, {meanadj} {animal} {go.ed} at {A.him}! {ohno_A} {A} hid {spot} and
  waited {sadly}.
{A} fell into the {plantbit} and lost a {color} {cloth}. {feels_bad_A}. nobody was there but {numb}
  {adjs}{wild.s} and a {adjs}{bird}. {ohno_A}
it was fun at first. then {A} got {negfeel} and [dizzy|stuck|sick|lost]. {A.his} {body} hurt, and {A.his}
  {cloth} was [torn|dirty|wet|gone]. {ohno_A}
@sorry_M
{np_M} [came|found {A.him}|was there] {quickly}. "I am sorry that I did not listen," {weeps_A}. {M.he}
  [hugged {A.him}|gave {A.him} {cure}|kissed {A.his} {body}|put a bandage on it]. "[I am glad that you are
  safe|please listen next time|now you know why|I was {negfeel}]{qx}," {says_M}. {feels_good_A}.
{A} told {A.his} {M} everything. {feels_bad_M}, but {M.he} {smilev.ed} too. "[rules keep us safe|next time
  you will listen|I know that you are {kindadj}|everyone makes mistakes]{qx}," {says_M}. {A} got {cure} and
  a {tasteadj} {snack}.
@contest_plot
{time}, there was a {c=contest} {L=place.at}. {A} wanted to win [a {adjs}{o=treasure}|the
  {adjs}{o=treasure}]. {A.his} friend {friend_B} was there too, in a {adjs}{cloth}.{D}{P}{contest_do}
{time}, a {kind} {job} said, "tomorrow there is a {c=contest} {L=place.at}! the winner gets a
  {adjs}{o=treasure}." {A} practiced {carefully} with {A.his} {get_M}. {A.his} friend {friend_B} practiced
  too.{P}{contest_do}
@contest_do
the {c} began. {A} {go.ed} {quickly}, but {B} {go.ed} even {prettyfast}. [then|suddenly|in the middle], {B}
  fell and hurt {B.his} {body}. {A} stopped to help. "[are you all right|take my hand|let us finish
  together|can you stand]?" {says_A}. a {meanadj} {animal} won the {c}, but {everyone_A}
"you will never win, {insult}!" said a {meanadj} {job}. {feels_bad_A}. but {B} said, "[do not listen|you are
  {kindadj}|just do your best|I believe in you]." {A} {helpv.ed} {carefully}, and {A.he} won the {o}!
  {feels_good_A}. {share_prize}
{A} did {A.his} best, but {B} won. {feels_bad_A}. then {A.he} {go.ed} to {B}. "[well done|you were
  {posfeel2}|good job|that was {niceadj}], {B}," {says_A}. {thanks_B} {share_prize}
{A} [cheated|took a short way|pushed {B}|started too early] and won the {c}. but {A} was not happy.
  {feels_bad_A}. "I did not play fair," {weeps_A}. {A.he} gave the {o} to {B}. {thanks_B}
@prettyfast
faster
slower
better
higher
@posfeel2
great
amazing
wonderful
fast
the best
@everyone_A
everyone {smilev.ed} and gave {A} the {o} for being {kindadj}. {feels_good_A}.
the {adjs}{job.s} [clapped|cheered|stood up] for {A} and {B}. {feels_good_B}.
@share_prize
{A} and {B} shared the {o} and {smilev.ed}. {eat_AB}
they [put|kept|hung] the {o} {room.at}. {play_AB}
@surprise
it was {A}'s [{famshe}|{famhe}]'s birthday. {A} and {A.his} friend {friend_B} [wanted|planned|decided] to
  make a surprise {pa=party}. {feels_good_A}.{P}they hung up {color} {q1=decor} and {decor} {room.at}. {A}
  made a {tasteadj} {sn=snack} with {tasteadj} {fruit.s}, and {B} brought {drink} and a {adjs}{treasure}.
  {party_trouble}{party_end}
{time}, it was {A}'s birthday, but nobody said anything. {feels_bad_A}. {A} [sat|waited|walked around] alone
  {spot}.{P}{later}, {A} opened the door {L=room.to}. there were {q1=decor}, {decor} and {numb} friends!
  "surprise!" %everyone {say.ed}. {A.his} friend {friend_B} gave {A.him} a {adjs}{kid_thing}.{party_end}
@party_trouble
but the {adjs}{pet} ate the {sn}! {feels_bad_B}. "{ohno}! we can use {tasty}{fruit.s} and {tasty}{food},"
  {says_A}.
then they heard {noise}. "hide {spot}!" {says_B}.
"it needs {numb} candles and a {adjs}{decor1}," {says_B}.
{feels_good_B}. "[shh|hush], [someone is coming|not a word|turn off the lights]{qx}," {says_A}.
@decor1
{cloth}
{furniture}
{flower}
{toy}
@party_end
{P}everyone {eatv.ed} {tasteadj} {food}, {tasty}{snack.s} and {tasty}{fruit.s}. then they {go.ed} around to
  the music of a {kind} {job}. {feels_good_A}. {wow_A}
{P}they [sang|played|danced|laughed] {happyly} and {eatv.ed} {tasteadj} {snack.s}. the best gift was a
  {adjs}{kid_thing}. {feels_good_A}.
@ill_plot
{time}, {A} woke up with {i=ill}. {A.his} {body} hurt, and {A.he} could not {hobby}. {feels_bad_A}.
  {room_detail}{P}{A.his} {get_M} {go.ed} in. "[stay in bed|you need {cure}|let me feel your {body}|you must
  rest]{qx}," {says_M}. {M.he} brought {cure} and {drink}. {ill_end}
{time}, {A}'s friend {friend_B} had {i=ill}. {B} could not {hobby} or {hobby}. {feels_bad_A}. {A.he} wanted
  to help.{P}{A} {makev.ed} a {adjs}card and took {tasteadj} {food} and a {adjs}{toy} to {B}. "[get well
  soon|how do you feel|this will help|I missed you]{qx}," {says_A}. {thanks_B} {ill_end}
@ill_end
{later}, a {kindadj} doctor in a {color} {cloth} came with {cure}. "[open your mouth|you will be fine|drink
  {drink}|no more {tasty}{snack.s} for now]{qx}," said the doctor {happyly}. {years} days later, {A} and
  everyone else felt {posfeel}. {feels_good_A}.
they [read|looked at|talked about] a book about a {kind} {job} and a {adjs}{animal}. {later}, everything was
  fine again. {feels_good_A}.
@cooking
{time}, {A} and {A.his} {get_M} wanted to {cookv} {tasteadj} {o=snack.s}. they needed {tasty}{food},
  {tasty}{fruit.s} and {drink}. {room_detail}{P}{A} {cookv.ed} the {tasty}{fruit.s} and {np_M} {cookv.ed}
  the {tasty}{food}. {cook_trouble}{P}{later}, the {o.s} were ready. they were {q1=tasteadj} and {tasteadj}.
  {feels_good_A}. {wow_A}
{time}, {A} was very hungry. "can we {cookv} {tasteadj} {o=snack.s}?" {asks_A}. "yes, but first we need
  {numb} {tasty}{fruit.s} from the {L=place}," said {A.his} {get_M}. they {go.ed}
  {L.to}.{D}{P}{cook_trouble}{P}{later}, they {eatv.ed} the {o.s} with {numb} hungry {job.s}.
  {feels_good_A}.
@cook_trouble
"[what comes next|what can I do|may I taste it|can I add {tasty}{fruit.s}]?" {asks_A}. "[yes|not yet|wait a
  bit|just a little], [we need {tasty}{food} first|be careful with the {tool}|now we {cookv} it|it must be
  {tasteadj}]{qx}," {says_M}.
but {A} [dropped|spilled|forgot] the {tasty}{food}! it was {spot}. {feels_bad_A}. "[do not worry|we can use
  {tasty}{food}|accidents happen|help me {chore}]{qx}," {says_M}.
{A} [put|threw|mixed] too much {tasty}{food} in it. it tasted {q1=tasteadj} and {tasteadj}! {np_M}
  {smilev.ed} and added {tasty}{fruit.s} and {tasty}{food}.
@new_friend
{day_at}{D} there {A} saw somebody new. it was {newcomer}. {B} looked {negfeel}. {subj_A} {go.ed} closer
  {carefully}.{P}{hi_B} "yes, let us {hobby}," {says_A}. {B} had a {adjs}{kid_thing} and {A} had a
  {tasteadj} {snack}. {play_AB}{P}{play_AB} {feels_good_A}. {thanks_B}
{A} was {negfeel} because {A.he} had no friends. {day_at} {A.he} sat down {spot} and {cryv.ed}. {newcomer}
  {go.ed} over.{P}{hi_B} "I am {negfeel}. nobody wants to {hobby} with me," {weeps_A}. "[I do|we can {hobby}
  together|come with me|I am {kindadj} and you are {kindadj}]!" {says_B}. {play_AB} {feels_good_A}.
@newcomer
{animal_friend}
a {kind} {monster} {named} [{B=petshe}|{B=pethe}]
@garden_plot
{time}, {A} found a {adjs}seed {spot}. {A.he} [planted|put|buried] it [near|behind|in front of] the
  {adjs}{furniture2} and gave it water with a {adjs}{tool}. every day {A} {lookv.ed}, but nothing happened.
  {feels_bad_A}.{P}"{ohno}! [why does it not grow|is it sleeping|will it ever grow]?" {weeps_A}. {A.his}
  {get_M} {smilev.ed}. "[be patient|it needs the sun|seeds need time|give it water and love]{qx}," {says_M}.
  {sky} was {niceadj} and the {wild.s} came.{P}{later}, there was a {sizeadj}, {color} {flower}! {numb}
  {adjs}{wild.s} and {bird.s} came to see it. {feels_good_A}. {wow_A}
{time}, {A} and {A.his} friend {friend_B} planted {tasty}{fruit.s} and {flower.s} in the garden with a
  {adjs}{tool}.{D} {A} gave them water every day, but {B} forgot.{P}{later}, {A} had {numb} {tasteadj}
  {fruit.s}, and {B} only had {plantbit}. {feels_bad_B}. "[you can have some of mine|next time we {helpv}
  together|here are {numb} seeds]{qx}," {says_A}. {thanks_B} {eat_AB}
@furniture2
house
fence
gate
shed
wall
@seaside
{time}, {A} and {A.his} {get_M} took a {adjs}{vehicle} to the beach. {A} wore a {adjs}{cloth} and carried a
  {color} bucket. {feels_good_A}. they saw {numb} {seaanimal.s} and a {adjs}{seaanimal} in the
  water.{P}{sea_event} {play_sea}
{time}, {A} {go.ed} along the beach with {A.his} {get_M}. the sand was [warm|wet|soft|white|full of
  {treasure.s}] and {numb} {adjs}{bird.s} [flew|sang|slept|sat] near a {adjs}{vehicle}.{P}{sea_event}
  {play_sea}
@sea_event
{A} [found|saw|heard] a {sizeadj} {p=seaanimal} in the sand. it was {negfeel}. "[it must go back to the
  water|it cannot breathe here|can we help it|poor {p}]{qx}," {says_A}. they {helpv.ed} {carefully} with a
  {adjs}{tool}, and the {p} swam away {happyly}.
a {sizeadj} wave came and took {A}'s {adjs}{o=toy}! {feels_bad_A}. then a {kind} {p=seaanimal} came with the
  {o} in its mouth. {thanks_p}
{A} found a bottle {spot} with a letter in it. "I am a {kind} {job} on an island with {numb}
  {adjs}{animal.s}. please send {tasty}{food} and a {adjs}{tool}," it said. "[is it real|we must help|what
  shall we do|who wrote this]?" {asks_A}.
@thanks_p
"thank you, {p}! [you are {kindadj}|now I feel {posfeel}|here is some {tasty}{food} for you]{qx}," {says_A}.
@play_sea
{later}, they built a {adjs}{buildable} out of {mat} and {eatv.ed} {tasteadj} {snack.s}. {feels_good_A}.
{later}, {A} collected {numb} {adjs}{treasure.s} and drew a {adjs}{seaanimal} in the sand. {feels_good_A}.
@zoo_trip
{time}, {A} and {A.his} class went to the [zoo|farm|museum|aquarium] in a {adjs}{vehicle}. {A} wanted to see
  the {o=animal} [most of all|first|more than anything|very much].{P}they saw {numb} {adjs}{animal.s},
  {numb} {adjs}{farm.s} and a {meanadj} {animal}. a {kind} {zj=job} let them feed the {seaanimal.s} with
  {tasty}{fruit.s}. {zoo_event}{P}at last they came to the {o}. it was {sizeadj} and {color}. it {smilev.ed}
  at {A}. {feels_good_A}. {wow_A}
@zoo_event
suddenly, a {meanadj} {animal} ran off with {A}'s {adjs}{zc=cloth}! {feels_bad_A}. the {zj} gave it {numb}
  {tasty}{fruit.s} and got the {zc} back.
{A} {go.ed} off and got lost near the {farm.s}. {ohno_A} {friend_B}, {A.his} friend, heard {A.him} and
  {go.ed} {quickly} to get the teacher.
"[why is the {animal} {color}|what does it eat|is it {negfeel}|can it {hobby}]?" {asks_A}. "it likes
  {tasteadj} {fruit.s} and [sleeps|lives|hides] {spot}," said the teacher {happyly}.
@chore_plot
{time}, {A}'s {get_M} said, "please {c=chore}[, {A}|]." but {A} wanted to {hobby}. "[I am too
  {negfeel}|later|it is so boring|I do not want to]{qx}," {says_A}. {feels_bad_M}.{P}{chore_do}
  {feels_good_M}. "[thank you|well done|you are {kindadj}|I am {posfeel}], {A}," {says_M}. {A} got a
  {tasteadj} {snack} and [a hug|a kiss|some {drink}|a {adjs}{toy}].
{time}, {A} wanted to help {A.his} {get_M} to {c=chore}. "you are too little," {says_M}.
  {feels_bad_A}.{P}{chore_do} {feels_good_M}. "now I see that you are {q1=kindadj} and {kindadj}," {says_M}.
  {feels_good_A}.
@chore_do
then {A} saw that {A.his} {M} was {q1=negfeel} and {negfeel}. {A} took a {adjs}{tool} and {helpv.ed}
  {carefully}. {A.he} made it a game and [sang|hummed|whistled] about {animal.s} and {tasty}{snack.s}.
{later}, {friend_B} from next door came to help with a {adjs}{tool}. "[it is more fun together|I will
  {helpv} and you {helpv}|let us race]{qx}," {says_B}. they {helpv.ed} {quickly}.
{A} found a {adjs}{treasure} {spot} while {A.he} {helpv.ed}. {A.he} {helpv.ed} {carefully} until everything
  was {niceadj}.
@trip
{time}, {A} and {A.his} {get_M} went on a trip to the {L=place} in a {adjs}{vehicle}. they packed {cloth.s},
  {tasteadj} {snack.s}, {drink} and a {adjs}{tl=tool}. {feels_good_A}.{P}on the way they saw {numb}
  {adjs}{farm.s}, a {adjs}{vehicle} and a {kind} {job} with a {color} {cloth}. {trip_trouble}{P}{L.at} they
  {helpv.ed} and put up a {adjs}tent under a {tree}.{D} {feels_good_A}.
@trip_trouble
but then the {tl} broke and they had to stop. {feels_bad_A}. a {kind} {job} in a {adjs}{vehicle} {helpv.ed}
  and fixed it with a {adjs}{tool} and {mat}. "thank you," {says_M}.
then {numb} {adjs}{farm.s} stood on the road and did not move. "[what do they want|shoo|please let us
  pass|they look {negfeel}]!" {says_A}. {np_M} gave them {tasty}{fruit.s} and {plantbit}, and they {go.ed}
  away.
"are we there yet?" {asks_A}. "[not yet|almost|look out of the window|count the {farm.s}|have a
  {snack}]{qx}," {says_M}. they sang about {numb} {adjs}{animal.s}.
@lost_animal
{day_at}{D} {A} {go.ed} after a {adjs}{wild} and did not look back. {later}, {A.he} did not know the way
  home. {feels_bad_A}. {ohno_A}{P}{A} met {animal_friend}. {hi_B} "I am lost. my home is near a {sizeadj}
  {tree} and {numb} {adjs}{flower.s}," {weeps_A}. they {go.ed} {quickly} past the {place} and the
  {place}.{P}{later}, {A} saw the {tree} with the {color} {plantbit}. {feels_good_A}. {thanks_A}
{A} had a {adjs}{o=treasure}. {day_at} {A.he} lost it {spot2}. {feels_bad_A}. {ohno_A}{P}{A} asked {numb}
  {adjs}{animal.s} and an old {animal}. nobody had seen the {o}. then {animal_friend} {go.ed} over. {hi_B}
  they looked {q1=spot} and {spot}. {feels_good_B}. "here it is!" {says_B}. {thanks_A} {feels_good_A}.
@spot2
on the way
near the water
in the dark
while playing
@share_animal
{time}, {A} found {numb} {tasteadj} {o=fruit.s} {spot}. {A.he} wanted to keep them all. {animal_friend} came
  by. "I am so hungry. may I have one of your {o.s}?" {asks_B}. {unshare}
{time}, {A} and {animal_friend} found a {sizeadj} {tasteadj} {o=snack} {spot}. "[I saw it first|it is
  mine|do not touch it]!" {says_A}. they pulled, and the {o} fell into the {plantbit}. {feels_bad_A}.{P}an
  old {an=animal} {smilev.ed}. "[two can share|there was enough for both|now nobody has it|you should have
  cut it in half]{qx}," said the {an}. {A} found {numb} {tasteadj} {fruit.s} {spot} and gave half to {B}.
  {thanks_B} {eat_AB}
@stuck
{day_at}{D} suddenly, {A} fell into [a deep hole|the {plantbit}|a {sizeadj} net|an old {tool}]. {A.his}
  [leg|tail|head|foot|nose] was stuck. {feels_bad_A}. {ohno_A}{P}a {meanadj} {animal} {go.ed} by, but did
  not help. then {animal_friend} {go.ed} up. {hi_B} "please help me," {weeps_A}. {B} took a {adjs}{tool} and
  {q1=helpv.ed} and {helpv.ed} {carefully}. {later}, {A} was free!{P}{thanks_A} {feels_good_A}. {eat_AB}
{day_at} {A.he} heard {noise}. {animal_friend} was stuck in the {plantbit}! {feels_bad_A}. {B} {cryv.ed}
  {sadly}. "[do not move|I will get you out|hold my {body}|wait here], {B}," {says_A}.{P}{A} {q1=helpv.ed}
  and {helpv.ed}, but was not strong enough. {A.he} got {numb} {adjs}{animal.s} and a {adjs}{tool}. together
  they {helpv.ed}, and {B} was free! {thanks_B} {feels_good_A}. {play_AB}
@build_animal
{time}, {A} wanted to build a {adjs}{o=buildable}. {A.he} needed {mat} and {plantbit}.{D} {animal_friend}
  came to help with a {adjs}{tool}.{P}{building} {built}
@race_animal
{time}, {A} met {animal_friend} {L=place.at}. "I am [faster|stronger|smarter|better] than you, {insult},"
  {says_B}. {feels_bad_A}. "let us have a {c=contest} then," {says_A}. {numb} {adjs}{animal.s} came to see
  the {o=treasure} that one could win.{P}{contest_do}
@monster_friend
{day_at} everyone was afraid of the {sizeadj} {m=monster} who lived there. {A} heard {noise}. the {m}
  {cryv.ed} {spot}! {feels_bad_A}, but {A.he} {go.ed} closer {carefully}.{P}"why do you {cryv}?" {asks_A}.
  "[nobody likes me|I hurt my {body}|I lost my {treasure}|I am {q1=negfeel} and {negfeel}|I have no
  {tasty}{food}]," the {m} {say.ed} {sadly}. {A} gave the {m} {tasteadj} {fruit.s} and a {adjs}{cloth}.
  "{exclaim}! you are {kindadj}," said the {m}.{P}{later}, the {animal.s} saw that the {m} was {q1=kindadj}
  and {kindadj}. they all {go.ed} around and {smilev.ed}. {feels_good_A}.
@storm_animal
{time}, there was a {sizeadj} {bd=bad} {L=place.at}. {A}'s home was full of {q1=plantbit} and {plantbit}.
  {feels_bad_A}. {ohno_A}{P}{A} {go.ed} {quickly} and met {animal_friend}. {hi_B} "my home is gone,"
  {weeps_A}. "you can stay with me. I have {tasty}{food}, {tasty}{fruit.s} and a {adjs}{furniture},"
  {says_B}. {thanks_A} {storm_over}
@hungry
{time}, {A} was very hungry. {A.he} {lookv.ed} {spot}, but found only {plantbit}. {feels_bad_A}. {A} {go.ed}
  {L=place.to} and saw {numb} {tasteadj} {hf=fruit.s} high up in a {sizeadj} {tree}.{P}{A} {q1=helpv.ed} and
  {helpv.ed}, but could not get them. {animal_friend} saw it. {hi_B} {B} {helpv.ed} {carefully} with a
  {adjs}{tool}, and the {hf.s} fell down. {thanks_A} {eat_AB}
{time}, {A} took {numb} {tasteadj} {o=fruit.s} from the garden of a {kind} {jb=job}. "who ate my {o.s}?"
  %the {jb} {say.ed} {sadly}. {feels_bad_A}.{P}"it was me. I was hungry. I am sorry," {weeps_A}. the {jb}
  {smilev.ed}. "[next time, just ask|you are honest|help me to {chore} and you can have more]," the {jb}
  {say.ed} {happyly}. {A} {helpv.ed} {carefully} all [day|week|morning]. {feels_good_A}.
@different
{A} had [a {color} {nosetail}|very {sizeadj} [ears|feet|teeth|eyes]|{color} {spots}]. the {animal.s} and the
  {bird.s} laughed at {A.him}. "you look like a {adjs}{cloth}, {insult}!" %they said. {feels_bad_A}. {A}
  {go.ed} {L=place.to} and {cryv.ed}.{P}{time}, there was a {sizeadj} {bad}. {numb} {adjs}{animal.s} were
  stuck {spot}. only {A} could see them in the dark. {A} {q1=helpv.ed} and {helpv.ed} {carefully} and saved
  them. "thank you, {A}. you are {q1=kindadj} and {kindadj}. we are sorry," they said. {feels_good_A}.
@nosetail
nose
tail
tummy
@spots
spots
stripes
dots
@party_animal
{time}, the animals wanted to have a {pa=party} {L=place.at}. {A} made {tasteadj} {snack.s} with
  {tasty}{fruit.s}, and {animal_friend} hung up {color} {q1=decor} and {decor}. {feels_good_A}. {numb}
  {adjs}{bird.s} sang and {numb} {adjs}{wild.s} danced.{P}{party_trouble2}{party_end}
@party_trouble2
but one {adjs}{animal} was not there. {A} found it {spot}. it was {negfeel} because it had no {pc=cloth}.
  "[come as you are|take my {adjs}{cloth}|you are {niceadj} without it]{qx}," {says_A}.
then a {meanadj} {an=animal} {go.ed} in and {eatv.ed} all the {tasty}{food}! {feels_bad_B}. "[you could have
  asked|you can stay if you help us|that was very {meanadj}]{qx}," {says_A}. the {an} was sorry and brought
  {numb} {tasty}{fruit.s}.
suddenly, they heard {noise}. {feels_bad_A}. it was only a {adjs}{animal} with a {adjs}{toy}. "may I come
  too?" it asked {sadly}. "of course," {says_B}.
"""

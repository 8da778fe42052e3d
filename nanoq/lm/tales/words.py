"""The words of the tales, grouped by what one can do with them, common words first.

Each group is ``[name kind]`` and words separated by commas. Kinds: ``she``, ``he`` (people and named
animals, with pronouns), ``noun`` (form s), ``verb`` (forms s, ed, ing), ``adj`` (form er), ``word`` (no
other forms), ``place`` (``preposition:place``; forms at, to). A word's weight falls with its rank as in
a shifted Zipf law, so that some words of a group are several times as frequent as others.
"""

from __future__ import annotations

from . import english
from .grammar import Lexicon

WORDS = """
[girl she]
Lily, Mia, Sue, Anna, Lucy, Sara, Emma, Amy, Daisy, Ella, Molly, Jane, Zoe, Sally, Kate, Nina, Rose, Mary,
Lila, Ruby, Jill, Maya, Chloe, Grace, Ava, Lisa, Jenny, Sophie, Nora, Bella, Alice, Penny, Tina, Eva, Clara,
Holly, Hannah, Betty, Polly, Maggie, Julia, Leah, Rachel, Susie, Olivia, Isla, Ivy, Hazel, Violet, Poppy,
Heidi, Ellie, Abby, Katie, Megan, Nancy, Laura, Emily, Carla, Dora, Edith, Fiona, Gina, Greta, Iris, Ida,
Josie, Karen, Kim, Layla, Lena, Linda, Lola, Luna, Mabel, Marta, Matilda, Minnie, Nadia, Naomi, Nelly,
Paula, Pia, Rita, Rosie, Ruth, Sandra, Selma, Stella, Tara, Tess, Thea, Trudy, Ursula, Vera, Wendy, Wilma,
Yara, Yuki, Zara, Agnes, Aisha, Amelia, Anita, Astrid, Beatrice, Bonnie, Camilla, Carmen, Celia, Cora,
Daphne, Delia, Diana, Elsa, Esther, Flora, Freya, Gloria, Harriet, Helen, Ines, Ingrid, Irene, Jasmine,
Joan, Judy, Kira, Lara, Leila, Lydia, Mei, Mira, Nell, Odette, Olga, Paloma, Priya, Robin, Rosa, Sabrina,
Salma, Sonia, Tabitha, Tamara, Tilda, Uma, Viola, Winnie, Xenia, Yasmin, Yvonne, Zelda, Adele, Bridget,
Cleo, Dalia, Eliza, Fern, Gemma, Hope, Imogen, Juno, Keiko, Lottie, Maddie, Nola, Orla, Petra, Ramona, Roxy,
Saskia, Sienna, Sylvie, Talia, Thelma, Tricia, Valerie, Vicky, Wanda, Zadie, Anya, April, Audrey, Becky,
Bianca, Brenda, Carol, Cathy, Claire, Connie, Daria, Debbie, Donna, Doris, Dottie, Effie, Elena, Elsie,
Erin, Evelyn, Faith, Felicity, Gail, Georgia, Gertie, Gwen, Hilda, Ilse, Jackie, Janet, Jocelyn, Joy, June,
Karla, Kelly, Kirsten, Lana, Leona, Libby, Lorna, Louise, Lucia, Lynn, Mandy, Margot, Marie, Marina, May,
Melanie, Mina, Miriam, Mona, Nadine, Nia, Noelle, Pam, Pauline, Peggy, Phoebe, Rhoda, Rowena, Sally-Ann,
Serena, Shirley, Sofia, Stacey, Sunita, Svenja, Tanya, Tatiana, Teresa, Tia, Una, Vanessa, Verity, Willa,
Ximena, Yolanda, Zola
[boy he]
Tim, Ben, Tom, Max, Jack, Sam, Timmy, Bob, Leo, Billy, Mark, Joe, Johnny, Tommy, Fred, Jim, Charlie, Mike,
Dan, Peter, Jake, Bobby, Danny, Adam, Alex, Josh, Nick, Henry, Luke, Jimmy, Oliver, Noah, Finn, Ethan, Toby,
Harry, Sid, Eric, Will, Paul, George, Oscar, Andy, Davy, Freddy, Kevin, Liam, Robbie, Simon, Teddy, Theo,
Victor, Walter, Zack, Albert, Alfie, Anton, Archie, Arthur, Barry, Bert, Bruno, Carl, Chris, Colin, Cyril,
Dave, Dennis, Derek, Diego, Dylan, Eddie, Edgar, Elliot, Emil, Felix, Frank, Gary, Gus, Hans, Harold,
Howard, Hugo, Ian, Isaac, Ivan, Jasper, Jay, Jerry, Jonas, Julian, Karl, Kenny, Kyle, Lars, Lenny, Lewis,
Louis, Marco, Martin, Matt, Milo, Nate, Neil, Ned, Nico, Olaf, Omar, Otto, Owen, Pablo, Patrick, Pedro,
Percy, Philip, Quentin, Ralph, Ravi, Ray, Rex, Rick, Roger, Ron, Rory, Rufus, Samir, Scott, Sean, Seth,
Stan, Stefan, Steve, Ted, Terry, Tony, Trevor, Tyler, Vincent, Wally, Wilbur, Yusuf, Zane, Abel, Amir,
Basil, Boris, Caleb, Cedric, Clive, Dexter, Duncan, Elias, Ernie, Floyd, Gilbert, Hamid, Hiro, Igor, Jamal,
Kofi, Leon, Magnus, Nolan, Orson, Quincy, Roland, Silas, Tarik, Umar, Vito, Wyatt, Aaron, Ahmed, Alan,
Alvin, Angus, Arlo, Asher, Austin, Axel, Benji, Bill, Blake, Brad, Brian, Bryan, Byron, Calvin, Carlos,
Chad, Chuck, Clark, Clay, Cody, Connor, Corey, Craig, Dale, Damian, Darren, Dean, Devon, Dirk, Doug, Drew,
Dwight, Earl, Edwin, Eli, Evan, Ezra, Fabian, Fergal, Fritz, Gabe, Gavin, Glenn, Gordon, Graham, Greg,
Gregor, Hal, Hank, Harvey, Hector, Herbert, Homer, Horace, Hubert, Ignatius, Ike, Ira, Ismael, Jared, Jed,
Jeff, Jeremy, Jesse, Joel, Jorge, Juan, Keith, Ken, Kurt, Lance, Larry, Lionel, Lloyd, Logan, Luca, Malik,
Manny, Marcel, Mario, Marvin, Mason, Maurice, Miguel, Mohan, Morris, Murray, Nigel, Norman, Pat, Perry,
Pierre, Raj, Ramon, Randy, Reggie, Rodney, Ross, Roy, Rudy, Russell, Sebastian, Shane, Shaun, Sidney,
Spencer, Stuart, Sven, Timothy, Tobias, Todd, Travis, Troy, Vernon, Wade, Warren, Wesley, Winston, Xavier,
Zeke
[petshe she]
Mimi, Fluffy, Bunny, Honey, Snowy, Goldie, Kitty, Tilly, Cookie, Bubbles, Dolly, Misty, Muffin, Peaches,
Pinky, Princess, Pippa, Pearl, Sunny, Twinkle, Velvet, Willow, Blossom, Buttercup, Button, Candy, Cherry,
Cinnamon, Clover, Coco, Cuddles, Dewdrop, Dot, Feather, Ginger, Hetty, Jewel, Ladybug, Lulu, Marigold,
Maple, Nibbles, Olive, Patty, Pebbles, Petal, Plum, Puddle, Queenie, Sprinkles, Squeaky, Sugar, Tootsie,
Tulip, Vanilla, Whiskers, Bluebell, Cupcake, Crystal, Duchess, Hopsy, Jellybean, Mittens, Moonbeam, Pansy,
Primrose, Skylark, Starlight, Tinkerbell, Toffee
[pethe he]
Max, Spot, Buddy, Rex, Lucky, Benny, Bruno, Bear, Bingo, Biscuit, Brownie, Bubba, Buster, Champ, Chip,
Chipper, Dash, Domino, Duke, Fuzzy, Giggles, Grumpy, Hoppy, Jumbo, Jumper, Ollie, Oreo, Patch, Peanut,
Pickle, Pip, Pogo, Quacky, Rocky, Rusty, Scamper, Scruffy, Shadow, Smokey, Sparky, Speedy, Spike, Sprout,
Tiger, Tiny, Toto, Waffles, Waggy, Wiggles, Wobbles, Ziggy, Acorn, Bandit, Barnaby, Basher, Bolt, Bramble,
Bumble, Captain, Chester, Chuckles, Comet, Crumbs, Fergus, Fidget, Flash, Grizzly, Hamlet, Hopper, Hunter,
Jingles, Marbles, Midnight, Monty, Mumbles, Nutty, Pepper, Prickles, Ranger, Ruffles, Sailor, Snuffles,
Stripes, Tango, Thumper, Toby, Twiggy, Wags, Zippy
[famshe she]
mom, mommy, grandma, mother, mama, sister, aunt, big sister, granny, nanny, godmother, great-aunt,
stepmother
[famhe he]
dad, daddy, grandpa, father, papa, brother, uncle, big brother, granddad, godfather, stepfather, great-uncle
[animal noun]
rabbit, bear, mouse, bird, fox, squirrel, frog, duck, cat, dog, turtle, bunny, elephant, lion, owl, monkey,
pig, hedgehog, deer, penguin, kitten, puppy, mole, goat, beaver, badger, lamb, giraffe, tiger, zebra, sheep,
hippo, otter, raccoon, chipmunk, koala, panda, donkey, pony, hamster, lizard, kangaroo, hare, wolf, cub,
toad, parrot, goose, swan, camel, crocodile, seal, walrus, moose, ferret, weasel, porcupine, skunk, possum,
hen, rooster, turkey, pigeon, robin, sparrow, peacock, ostrich, flamingo, rhino, gorilla, leopard, cheetah,
antelope, buffalo, llama, alpaca, yak, sloth, armadillo, anteater, lemur, baboon, chimp, meerkat, mongoose,
jackal, hyena, bison, reindeer, gazelle, wombat, platypus, gecko, iguana, chameleon, tortoise, salamander,
newt, pelican, stork, heron, crane, toucan, puffin, woodpecker, magpie, raven, crow, falcon, vole, shrew,
dormouse, marmot, lynx, puma, jaguar, panther, gopher, okapi, tapir, ibex, stoat, polecat, wolverine, badger
cub, bobcat, coyote, elk, caribou, wildebeest, warthog, boar, aardvark, capybara, coati, kiwi, emu,
cassowary, dodo, vulture, condor, ibis, egret, bat, hawk, sea otter, muskrat, lemming, jerboa, hamster pup,
bullfrog, tree frog, skink, python, cobra, grass snake, viper, orangutan, gibbon, mandrill, tamarin,
marmoset, polar bear, grizzly, snow leopard, ocelot, caracal, dingo, wallaby, bandicoot, quokka, echidna,
pangolin, impala, eland, kudu, oryx, musk ox, mountain goat
[wild noun]
bee, butterfly, ladybug, ant, spider, beetle, dragonfly, caterpillar, snail, worm, grasshopper, cricket,
firefly, moth, bumblebee, centipede, slug, mosquito, wasp, hornet, flea, gnat, earthworm, mayfly, stag
beetle, water bug, cicada, millipede, katydid, silkworm, glowworm, inchworm, tick, midge, locust, earwig,
damselfly, stick insect, tiger moth, hoverfly, lacewing, weevil, aphid, honeybee, swallowtail, monarch,
mantis, cockroach, pill bug, daddy longlegs, water strider, dung beetle, june bug, leafhopper, horsefly,
sawfly, ladybird, woodlouse, tree frog, newt, sand flea, leech, scarab
[bird noun]
robin, sparrow, owl, crow, duck, pigeon, seagull, dove, swan, goose, blackbird, swallow, woodpecker, eagle,
hummingbird, finch, starling, wren, lark, canary, cardinal, cuckoo, falcon, hawk, heron, kingfisher, magpie,
nightingale, oriole, parakeet, partridge, peacock, pelican, pheasant, quail, raven, sandpiper, stork,
thrush, titmouse, warbler, buzzard, cormorant, goldfinch, kestrel, kite, nuthatch, redwing, turtledove,
waxwing, chickadee, bullfinch, chaffinch, greenfinch, jackdaw, jay, nightjar, osprey, plover, puffin,
roadrunner, rook, skylark, snipe, spoonbill, swift, tanager, tern, toucan, vireo, wagtail, woodcock,
yellowhammer, albatross, barn owl, bluebird, bunting, catbird, curlew, dipper, egret, flycatcher, grackle,
grebe, grouse, gull, harrier, hoopoe, ibis, killdeer, lapwing, linnet, loon, macaw, martin, meadowlark,
mockingbird, moorhen, petrel, ptarmigan, siskin
[seaanimal noun]
fish, crab, starfish, dolphin, whale, turtle, octopus, seal, jellyfish, goldfish, shrimp, lobster, seahorse,
shark, eel, otter, sea lion, stingray, swordfish, clam, oyster, squid, salmon, trout, tuna, carp, minnow,
tadpole, hermit crab, snapper, clownfish, manatee, mussel, sardine, sea urchin, sunfish, pike, perch,
herring, barracuda, cuttlefish, narwhal, mackerel, anchovy, angelfish, anglerfish, beluga, butterfly fish,
codfish, conch, crayfish, cowfish, devilfish, dogfish, dugong, flounder, flying fish, grouper, guppy,
haddock, halibut, hammerhead, killer whale, lamprey, lionfish, marlin, mollusk, monkfish, mudskipper,
nautilus, orca, parrotfish, pipefish, piranha, porpoise, prawn, pufferfish, ray, sand dollar, scallop, sea
cucumber, sea slug, sea snail, sea turtle, sole, spider crab, sponge, stickleback, sturgeon, swordtail,
tiger shark, tilapia, whelk
[farm noun]
cow, horse, pig, sheep, hen, goat, duck, donkey, goose, pony, lamb, calf, rooster, turkey, piglet, foal,
chick, duckling, gosling, bull, ram, mare, ox, mule, stallion, colt, kid goat, llama, guinea fowl, sheepdog
[pet noun]
dog, cat, puppy, kitten, rabbit, hamster, parrot, goldfish, guinea pig, pony, turtle, mouse, canary, bunny,
gerbil, tortoise, lizard, parakeet, ferret, poodle, terrier, beagle, collie, spaniel, dachshund, tabby cat,
budgie, cockatoo, husky, bulldog, retriever, corgi, chihuahua, greyhound, chinchilla, iguana
[toy noun]
ball, doll, toy car, kite, teddy bear, balloon, puzzle, drum, toy truck, train set, bike, book, robot, boat,
whistle, block tower, yo-yo, jump rope, marble, puppet, toy plane, wagon, top, rocking horse, dollhouse, toy
dinosaur, toy sword, crayon, sticker book, bubble wand, music box, toy rocket, rag doll, toy boat, slinky,
frisbee, pinwheel, toy train, paper plane, toy phone, toy bus, toy tractor, tricycle, scooter, skateboard,
sled, hula hoop, racket, bat, baton, boomerang, kaleidoscope, magnet, toy castle, toy knight, toy soldier,
toy pony, toy whale, toy camera, toy piano, spinning wheel, water gun, snow globe, jigsaw, domino, playing
card, comic book, coloring book, picture book, paint set, tea set, toy crane, toy helicopter, toy lion, toy
giraffe, toy tiger, toy spaceship, toy submarine, toy wand, toy crown, beach ball, basketball, soccer ball,
football, tennis ball, baseball, toy hammer, toy fiddle, rattle, glove puppet, wind-up mouse, toy ambulance,
toy anchor, toy ark, toy banjo, building block, toy bulldozer, toy canoe, toy carriage, clay pot, toy cow,
toy dragon, toy drum, finger puppet, toy ferry, flying disc, toy fort, toy fox, toy garage, gyroscope, hand
puppet, hobby horse, toy jeep, juggling ball, lasso, toy mouse, nesting doll, toy oven, paper boat, paper
doll, ping-pong ball, play tent, pogo stick, pop-up book, rubber ball, rubber duck, toy shark, slingshot,
stacking ring, toy tank, toy taxi, telescope kit, toy theater, toy tiger cub, toy tram, trampoline, toy
trumpet, unicycle, walkie-talkie, whirligig, toy wolf, wooden block, xylophone, toy zebra, zoo set
[treasure noun]
shell, key, coin, ring, button, stone, feather, necklace, map, bell, ribbon, box, bracelet, pebble, lantern,
bottle, basket, photo, watch, crystal, gem, jewel, medal, bead, brooch, locket, pearl, diamond, ruby, acorn,
pinecone, chestnut, mirror, compass, flashlight, magnifying glass, postcard, letter, stamp, badge, flag,
umbrella, purse, wallet, pencil, pen, brush, comb, candle, cup, spoon, teapot, jar, vase, clock, flute,
trumpet, harmonica, notebook, diary, album, fossil, seashell, arrowhead, emerald, sapphire, opal, amulet,
charm, trinket, figurine, statue, thimble, spool, needle, hairpin, barrette, tiara, crown, goblet,
telescope, hourglass, pocketknife, whisk, lunchbox, thermos, backpack, satchel, pouch, keychain, bookmark,
medallion, horseshoe, weathervane, wind chime, snowflake pin, music sheet, accordion, alarm clock, almanac,
ankle bracelet, armband, atlas, banjo, bead necklace, beaker, birdcage, bottle cap, bouquet, bowl, bugle,
calendar, cameo, cane, canvas, carving, cello, chain, chalice, coin purse, comic strip, conch, cowbell,
cufflink, dagger pin, dish, drawing, earring, egg timer, envelope, eraser, fan, feather duster, fishhook,
flower press, glass bead, gong, guidebook, hairbrush, handbag, handkerchief, hinge, horn, inkwell, jewelry
box, journal, jug, kazoo, lamp shade, lyre, mandolin, marker, matchbox, moonstone, mug, music box key,
nameplate, napkin ring, nugget, ornament, paperweight, parchment, pendant, penny, piggy bank, plaque, plate,
platter, pocket watch, poem book, portrait, puzzle box, quill, recorder, rubber stamp, saucer, scroll,
sewing kit, sketchbook, snail shell, songbook, storybook, sundial, tambourine, teacup, ticket, token, tray,
trophy, ukulele, urn, violin, walking stick, whetstone, wreath, wristband, zither
[cloth noun]
hat, coat, scarf, dress, jacket, sweater, cap, shirt, sock, shoe, boot, glove, mitten, skirt, raincoat,
cape, apron, belt, vest, hood, slipper, sandal, bonnet, bow tie, blouse, cardigan, cloak, costume, gown,
helmet, jumper, kilt, mask, nightgown, overcoat, poncho, robe, sash, shawl, sneaker, suit, sun hat,
swimsuit, t-shirt, tunic, tutu, uniform, veil, wig, anorak, beanie, beret, bandana, headband, hoodie,
kimono, leotard, parka, petticoat, pinafore, sarong, turban, turtleneck, waistcoat, windbreaker, straw hat,
top hat, tracksuit, ballet shoe, baseball cap, bathrobe, blazer, bodice, clog, collar, cravat, earmuff,
flip-flop, frock, galosh, garter, hairband, hairnet, hiking boot, jersey, jumpsuit, kerchief, lab coat, leg
warmer, life vest, moccasin, necktie, nightcap, nightshirt, onesie, overall, pajama top, pantsuit, party
hat, pullover, rain hat, romper, rubber boot, shoelace, silk scarf, ski mask, sleeve, smock, sombrero,
stocking, sundress, suspender, tank top, tie, trench coat, undershirt, wetsuit, winter coat, wool hat
[fruit noun]
apple, banana, orange, pear, strawberry, cherry, peach, plum, carrot, berry, grape, lemon, tomato, pumpkin,
melon, mango, blueberry, raspberry, potato, mushroom, kiwi, lime, nut, coconut, pineapple, watermelon,
apricot, fig, date, blackberry, cucumber, onion, pepper, turnip, radish, beet, corn cob, pea pod, bean,
cabbage, walnut, hazelnut, almond, peanut, olive, avocado, papaya, guava, cranberry, gooseberry, nectarine,
tangerine, pomegranate, quince, zucchini, eggplant, artichoke, leek, parsnip, squash, yam, chili, cashew,
pecan, pistachio, mulberry, currant, elderberry, grapefruit, acai berry, bell pepper, breadfruit, brussels
sprout, cantaloupe, chickpea, clementine, crab apple, dragon fruit, honeydew, huckleberry, kumquat, lentil,
lychee, macadamia, mandarin, okra pod, passion fruit, persimmon, plantain, prune, raisin, rutabaga, satsuma,
shallot, snow pea, star fruit, sweet pea, turnip top, blackcurrant, bilberry, boysenberry, loganberry,
cloudberry, rose hip, cherry tomato, truffle mushroom, water chestnut
[snack noun]
cookie, cake, sandwich, cupcake, pie, muffin, pancake, candy, lollipop, donut, waffle, biscuit, brownie,
bun, bagel, ice cream cone, jelly bean, gumdrop, popsicle, pretzel, cracker, burger, pizza, tart, roll,
croissant, egg, dumpling, meatball, noodle, taco, burrito, pickle, sausage, toffee, marshmallow, caramel,
chocolate bar, milkshake, smoothie, omelet, scone, crepe, fritter, turnover, strudel, eclair, macaroon,
gingerbread man, truffle, nougat, licorice stick, wafer, shortcake, cheesecake, flapjack, crumpet, pasty,
quiche, samosa, kebab, spring roll, wrap, tortilla, apple pie, bagel chip, banana split, berry tart, bonbon,
bread roll, butter cookie, candy apple, candy cane, carrot cake, cinnamon roll, coconut bar, corn muffin,
cream puff, crispbread, custard tart, fish stick, fortune cookie, fruit bar, fudge square, granola bar, ice
lolly, jam tart, kolache, ladyfinger, lemon bar, macaron, meat pie, meringue, mint drop, mooncake, nut bar,
oat cake, parfait, pastry, patty, peppermint, pita, potato chip, profiterole, rice cake, rice ball, rusk,
shish kebab, slider, soda bread, souffle, sugar cookie, sundae, tamale, tea cake, torte, trifle,
vol-au-vent, wonton
[food word]
soup, bread, cheese, honey, jam, rice, ice cream, butter, pasta, salad, spaghetti, toast, yogurt, cereal,
porridge, popcorn, chocolate, pudding, jelly, oatmeal, chicken, fish, corn, spinach, broccoli, lettuce,
peanut butter, stew, gravy, ketchup, mustard, syrup, cream, custard, fudge, granola, hummus, macaroni,
marmalade, mashed potato, salsa, lasagna, ham, bacon, turkey, beef, tofu, celery, cauliflower, kale,
asparagus, applesauce, chowder, curry, risotto, ravioli, sauerkraut, gelatin, garlic bread, cornbread,
coleslaw, guacamole, sorbet, whipped cream, bean soup, beet salad, borscht, bouillon, bran, cheddar, cottage
cheese, couscous, dal, dressing, dough, fondue, fruit salad, goulash, grits, honeycomb, horseradish, lemon
curd, maple syrup, mayonnaise, meatloaf, miso, mozzarella, muesli, nut butter, onion soup, paella, parmesan,
pea soup, pesto, pilaf, polenta, pork, quinoa, ratatouille, relish, rye bread, semolina, sesame paste,
sherbet, slaw, sourdough, stuffing, sushi, tapioca, tomato soup, tuna, vegetable stew, vinegar
[drink word]
milk, juice, water, tea, lemonade, cocoa, apple juice, soda, coconut water, chocolate milk, iced tea, grape
juice, cider, mint tea, carrot juice, berry juice, ginger ale, root beer, cherry juice, herbal tea, rosehip
tea, almond milk, eggnog, punch, mineral water, malted milk, apple cider, apricot nectar, barley water,
birch juice, blueberry smoothie, buttermilk, chamomile tea, cranberry juice, fruit punch, goat milk, guava
juice, herb tea, jasmine tea, lemon water, lime soda, mango juice, melon juice, oat milk, papaya juice, pear
juice, pineapple juice, rice milk, sparkling water, strawberry milk, tomato juice, tonic
[flower noun]
rose, daisy, tulip, sunflower, flower, lily, violet, daffodil, poppy, buttercup, bluebell, dandelion, pansy,
orchid, marigold, iris, carnation, lilac, snowdrop, peony, petunia, primrose, crocus, hyacinth, jasmine,
magnolia, dahlia, geranium, honeysuckle, foxglove, forget-me-not, thistle, begonia, azalea, chrysanthemum,
cornflower, gardenia, gladiolus flower, hibiscus, hollyhock, hydrangea, larkspur, lupine, snapdragon, water
lily, zinnia, aster, camellia, columbine, cowslip, edelweiss, freesia, heather bush, anemone, wildflower,
bellflower, bleeding heart, calla lily, catnip, clematis, coneflower, cosmos flower, cyclamen, delphinium,
evening primrose, flax flower, fuchsia, goldenrod, harebell, heliotrope, impatiens flower, lavender, lotus,
meadowsweet, mimosa, morning glory, nasturtium, oleander, oxlip, passionflower, phlox, ragwort,
rhododendron, saffron, speedwell, sweet william, tansy, tiger lily, trillium, verbena, wallflower, wisteria,
yarrow
[tree noun]
tree, oak, apple tree, pine, willow, maple, oak tree, cherry tree, palm, birch, pear tree, bush, chestnut,
elm, ash, cedar, poplar, fir, spruce, beech, fig tree, lemon tree, hawthorn, hazel, juniper, larch, linden,
mulberry, olive tree, redwood, sycamore, alder, aspen, cypress, eucalyptus, yew, rowan, banyan, bamboo,
baobab, acacia, sequoia, almond tree, balsam, box tree, buckeye, camphor tree, catalpa, coconut palm,
cottonwood, dogwood, ebony tree, elder, fir tree, ginkgo, gum tree, hemlock, hickory, holly, hornbeam,
ironwood, jacaranda, laurel, locust tree, mahogany, mango tree, mangrove, medlar, monkey puzzle, mountain
ash, pecan tree, pepper tree, plane tree, quince tree, rubber tree, sandalwood, teak, tulip tree, willow
tree, yew tree
[plantbit word]
leaves, grass, moss, mud, sand, pebbles, rocks, twigs, acorns, petals, weeds, ferns, reeds, roots, branches,
clover, pine needles, seeds, straw, hay, bark, vines, ivy, driftwood, gravel, puddles, dew, thorns, stalks,
bushes, brambles, nettles, seaweed, shells, pinecones, sticks, stones, cobwebs, dust, chestnuts, logs,
stumps, ashes, bamboo, beechnuts, blossoms, boulders, buds, burrs, catkins, chaff, clay, clods of earth,
corn, cones, creepers, crumbs, daisies, dead leaves, dirt, duckweed, feathers, flints, foliage, frost,
fungi, grains, hailstones, heather, hedges, herbs, husks, icicles, lichen, lily pads, loam, mistletoe,
mulch, nutshells, peat, pine cones, pods, pollen, rushes, saplings, sawdust, scrub, shavings, shoots, slate,
slush, snowdrifts, soil, splinters, sprouts, tendrils, toadstools, treetops, tufts of grass, turf,
undergrowth, wheat, wildflowers, willow branches, wood chips
[place place]
in:park, in:forest, in:garden, at:beach, in:woods, at:playground, on:farm, at:zoo, in:meadow, by:river,
by:lake, at:pond, in:field, on:hill, in:yard, in:town, at:market, in:village, at:library, in:backyard,
at:store, at:school, in:barn, in:jungle, at:museum, in:valley, on:mountain, by:sea, at:fair, at:circus,
in:orchard, on:bridge, by:stream, at:harbor, in:cave, in:square, in:castle, in:attic, in:city, at:station,
on:path, in:swamp, at:well, at:mill, at:bakery, at:toy shop, in:desert, on:island, by:waterfall,
at:fountain, at:pool, at:campground, in:greenhouse, in:stable, at:lighthouse, on:dock, at:carnival,
in:vineyard, in:cornfield, in:canyon, in:courtyard, in:maze, at:theater, at:bookstore, in:bay, at:gym,
at:bus stop, at:crossroads, at:gate, in:alley, at:aquarium, at:observatory, at:pet shop, at:skating rink,
at:picnic spot, in:pumpkin patch, in:rose garden, in:treehouse, on:cliff, on:shore, on:pier, at:airport,
in:cottage, in:glade, in:grove, in:marsh, in:thicket, in:hollow, in:pasture, on:prairie, on:plain,
in:ravine, on:riverbank, in:amphitheater, at:art gallery, at:ballpark, in:bamboo forest, at:bank,
at:bookshop, by:brook, at:butcher shop, at:cafe, in:camp, by:canal, in:cathedral, in:chapel, at:church,
at:cinema, at:clinic, at:coffee house, in:cove, by:creek, in:crypt, by:dam, at:dance hall, at:deli,
on:dunes, at:factory, in:farmyard, at:ferry landing, at:fire station, at:fish market, in:flower bed,
in:fort, at:garage, at:gas station, on:golf course, at:grocery store, in:gully, in:hayloft, on:headland,
at:hospital, at:hotel, at:ice rink, at:inn, at:junction, in:kindergarten, by:lagoon, in:laboratory, on:lawn,
in:lounge, at:mall, in:manor, at:marina, in:mine, by:moat, in:monastery, on:moor, in:mud hut, at:newsstand,
in:nursery school, at:office, in:olive grove, at:opera, in:outback, in:palace, at:parade ground, in:parking
lot, on:peninsula, at:planetarium, on:plateau, at:playhouse, at:police station, at:post office, at:quarry,
on:racetrack, in:rain forest, on:ranch, by:reservoir, at:restaurant, in:ruins, on:sandbank, in:savanna,
at:sawmill, at:shoe shop, in:shipyard, at:skate park, on:slope, at:smithy, at:snack bar, on:sports field,
by:spring, at:stadium, at:summer camp, in:sunflower field, at:supermarket, at:swimming pool, in:tea garden,
at:temple, on:tennis court, at:toy store, at:train station, on:trail, in:tulip field, in:tundra, in:tunnel,
at:university, at:village hall, on:volcano, at:water park, by:weir, on:wharf, in:wilderness, in:windmill,
at:workshop
[room place]
in:kitchen, in:bedroom, in:living room, in:bathroom, in:attic, in:basement, in:hall, in:garage, in:shed,
on:porch, in:playroom, in:closet, in:dining room, in:cellar, in:nursery, on:balcony, in:pantry, on:stairs,
in:study, in:laundry room, in:workshop, on:terrace, in:hallway, in:den, in:loft, on:landing, in:guest room,
in:storeroom, on:veranda, in:sunroom
[spot word]
under the bed, behind the couch, under a bush, in the grass, behind a tree, under the table, in a box, on a
shelf, behind the door, under a leaf, in a drawer, under the rug, in a basket, on the roof, under a bench,
in the mud, behind a rock, in a hole, in the sandbox, in a puddle, inside a boot, under a pillow, behind the
curtain, in a bucket, on a branch, inside a teapot, in a nest, under the stairs, in the laundry, behind the
shed, beside the well, in the hay, in a flowerpot, in a hollow log, on the windowsill, inside the piano,
under a blanket, behind the fridge, in the gutter, under a wheelbarrow, in the mailbox, beneath the bridge,
between two stones, among the ferns, in a ditch, behind the stove, inside a vase, in the toolbox, beneath a
pile of leaves, behind the haystack, on top of the cupboard, inside a pumpkin, under the porch, in the
compost, at the bottom of the pond, behind the bookcase, in the chimney, inside a trunk, above the
fireplace, against the fence, amid the tulips, among the cushions, among the pots, at the bottom of a well,
behind a barrel, behind a cloud, behind a crate, behind a wall, behind the clock, behind the oven, behind
the piano, behind the shutters, behind the statue, behind the stage, below the bridge, below the deck, below
the window, beneath a bench, beneath a bucket, beneath the ice, beneath the sofa, beside a bonfire, beside
the chimney, beside the fountain, between the branches, between the books, between two barrels, between two
trees, by the campfire, by the front door, by the letterbox, close to the fence, in a birdhouse, in a canoe,
in a corner, in a crack, in a cradle, in a hammock, in a haystack, in a honey pot, in a jar, in a kettle, in
a lunchbox, in a pile of snow, in a pocket, in a sack, in a shoe, in a sleeve, in a suitcase, in a tent, in
a trash can, in a tree hole, in a tunnel, in a wagon, in the bathtub, in the bushes, in the clover, in the
cornfield, in the doghouse, in the fish tank, in the flower bed, in the gravel, in the hedge, in the
henhouse, in the laundry basket, in the moss, in the oven, in the reeds, in the rose bush, in the rowboat,
in the sink, in the snow, in the stroller, in the tall weeds, in the toy chest, in the tree stump, in the
wardrobe, inside a barrel, inside a drum, inside a guitar, inside a helmet, inside a pipe, inside a shell,
inside the bread box, near the compost, near the ferns, near the gate, near the rocks, next to a fountain,
next to a mushroom, next to the stove, next to the swing, on a cloud of leaves, on a ladder, on a lily pad,
on a stool, on a tree stump, on the bridge railing, on the doorstep, on the fence post, on the hood of a
car, on the ice, on the lawn, on the piano, on the railing, on the sand, on the staircase, on the workbench,
outside the barn, outside the shed, over the doorway, under a boat, under a bridge, under a cabbage, under a
cart, under a chair, under a fern, under a flower, under a hat, under a ladder, under a mattress, under a
mushroom, under a newspaper, under a stone, under a tree root, under a truck, under a waterfall, under an
arch, under an umbrella, under the bushes, under the counter, under the desk, under the ice, under the sofa,
under the swing, under the tablecloth, up in the attic beams, up on a ledge, upon a rock, within the walls
[furniture noun]
chair, table, bed, lamp, shelf, rug, couch, window, door, clock, mirror, box, cupboard, bench, stool,
picture, curtain, pillow, blanket, bookcase, desk, drawer, fireplace, vase, piano, trunk, armchair,
wardrobe, cradle, carpet, chest, candlestick, teapot, radio, stove, rocking chair, sofa, bunk bed, hammock,
dresser, cabinet, chandelier, footstool, bathtub, sink, ladder, rack, mattress, quilt, cushion, doormat,
kettle, basket, alcove, anvil, attic chest, banister, barrel, basin, beanbag, birdbath, blackboard,
bookstand, bookend, broomstick, bureau, cabin bed, china cabinet, coat rack, coffee table, coffee pot, cot,
counter, crib, cuckoo clock, curtain rod, daybed, deck chair, dining table, dishwasher, doorbell, easel,
fan, file cabinet, flagpole, flower stand, freezer, fridge, futon, grandfather clock, hat stand, heater,
icebox, jukebox, keyboard, kitchen table, laundry basket, lectern, loveseat, mantelpiece, night lamp,
nightstand, organ, oven, paravent, patio chair, pedestal, picture frame, pitcher, pot rack, record player,
recliner, safe, sewing machine, shoe rack, sideboard, spinning stool, stepladder, swivel chair, tea trolley,
television, throne, toaster, towel rack, tub, typewriter, umbrella stand, vacuum cleaner, washing machine,
wastebasket, whiteboard, wicker chair, windowsill, workbench, writing desk
[tool noun]
hammer, rope, ladder, shovel, bucket, broom, saw, brush, net, stick, nail, wrench, paintbrush, spoon, rake,
screwdriver, axe, basket, needle, scissors case, tape measure, drill, hose, mop, pulley, pot, pan,
wheelbarrow, hook, hoe, crowbar, watering can, trowel, spade, sponge, chisel, pliers set, clamp, sander,
file, fishing rod, flashlight, hinge, screw, bolt, plank, string, ruler, funnel, crate, barrel, pitchfork,
sickle, lever, mallet, anvil, tongs set, spatula, ladle, whisk, rolling pin, tarp, glue stick, magnet,
anchor, paddle, oar, wedge, winch, pump, spanner, awl, bellows, bicycle pump, blowtorch, bottle opener, bow
saw, bradawl, branding iron, broomstick, can opener, canvas bag, carabiner, chain, chopping board,
clothesline, coil of wire, corkscrew, crank, cutter, duster, dustpan, fishing net, flint, frying pan, garden
hose, gimlet, glue gun, grater, hacksaw, hand drill, hatchet, jack, jigsaw blade, keyhole saw, lantern,
lasso, lathe, lawn mower, level, loom, machete, measuring cup, mixing bowl, monkey wrench, oil can, pail,
palette, peeler, pickaxe, pipe, plane, pocketknife, pole, pruning knife, putty knife, ramp, razor, rivet,
roller, rubber band, safety pin, sandbag, scale, scoop, scraper, scythe, sieve, sledgehammer, snow shovel,
soldering iron, spindle, spirit level, sprinkler, squeegee, stapler, stepladder, stethoscope, strainer, tape
roll, thermometer, tin snips, toolbelt, torch, trap, trimmer, tripod, tub, tweezer set, vise, washboard,
wheel, wire brush, yardstick
[vehicle noun]
car, truck, bus, train, boat, bike, plane, tractor, fire truck, ship, wagon, van, taxi, sailboat,
helicopter, motorcycle, rocket, cart, sled, canoe, carriage, police car, ambulance, ferry, tram, jeep,
scooter, bulldozer, crane, garbage truck, submarine, raft, rowboat, digger, trolley, limousine, steamboat,
tugboat, yacht, kayak, airship, glider, milk truck, mail van, dump truck, race car, camper, trailer,
rickshaw, sleigh, barge, hovercraft, airplane, biplane, bobsled, bullet train, bumper car, cable car, camper
van, catamaran, chariot, coach, combine harvester, convertible, cruise ship, dinghy, dirt bike, dogsled,
double-decker, electric car, express train, fishing boat, forklift, freight train, galleon, gondola,
handcart, hang glider, hay wagon, houseboat, hot-air balloon, ice cream van, lifeboat, minibus, monorail,
moped, mountain bike, oil tanker, paddle boat, pedal boat, pickup truck, pirate ship, punt, road roller,
rocket ship, schooner, school bus, sidecar, snowmobile, snowplow, speedboat, stagecoach, station wagon,
steam train, streetcar, subway train, tandem, tank truck, toboggan, tow truck, touring car, tractor trailer,
trawler, unicycle, water taxi, wheelchair, windsurfer, zeppelin
[job noun]
farmer, teacher, baker, doctor, fireman, policeman, shopkeeper, mailman, gardener, fisherman, sailor, king,
queen, nurse, librarian, cook, painter, clown, builder, driver, pilot, shepherd, tailor, singer, dancer,
princess, prince, knight, magician, barber, butcher, carpenter, captain, soldier, hunter, miller,
blacksmith, postman, zookeeper, vet, dentist, artist, poet, inventor, explorer, pirate, musician, juggler,
acrobat, plumber, mechanic, astronaut, scientist, judge, waiter, chef, janitor, lifeguard, coach, jeweler,
potter, weaver, beekeeper, woodcutter, cobbler, clockmaker, milkman, florist, photographer, writer, actor,
drummer, violinist, pianist, conductor, engineer, firefighter, ranger, diver, guard, innkeeper, locksmith,
toymaker, candle maker, bricklayer, glassblower, watchman, ferryman, fiddler, chimney sweep, mayor,
accountant, ambulance driver, announcer, archer, architect, astronomer, babysitter, ballerina, banker,
bargeman, basket maker, bell ringer, bookbinder, bookseller, brewer, bus driver, candy maker, cartoonist,
cashier, cheesemaker, chemist, cleaner, coachman, collector, composer, confectioner, cowboy, craftsman,
dairymaid, designer, detective, dog walker, dressmaker, duke, editor, electrician, emperor, falconer,
fortune teller, gatekeeper, geologist, goatherd, goldsmith, governor, grocer, guide, gymnast, hairdresser,
harpist, hatter, herbalist, historian, host, hotel owner, housekeeper, hiker, ice cream seller, jester,
journalist, knitter, lacemaker, lamplighter, landlady, lawyer, leader, lighthouse keeper, lion tamer,
lumberjack, maid, manager, map maker, mason, matchmaker, merchant, messenger, midwife, minister, minstrel,
monk, nanny, navigator, newsboy, nun, optician, organist, paramedic, park keeper, peddler, perfume maker,
pharmacist, piper, porter, printer, professor, puppeteer, racer, receptionist, referee, reporter, roofer,
rower, saddler, sculptor, seamstress, secretary, seller, sheriff, shoemaker, silversmith, skater, skier,
spy, stonecutter, storyteller, stuntman, surgeon, surveyor, swimmer, tanner, taxi driver, thatcher, ticket
seller, tightrope walker, tinker, trainer, translator, traveler, treasurer, trumpeter, tutor, umpire, usher,
valet, ventriloquist, warden, washerwoman, watchmaker, welder, window cleaner, woodworker, zoologist
[surname word]
Smith, Brown, Green, Jones, White, Black, Lee, Wilson, Baker, Miller, Hill, Wood, Rose, Bell, Fox, Gray,
King, Moore, Taylor, Adams, Carter, Davis, Evans, Harris, Hughes, Jackson, Johnson, Kelly, Lopez, Martin,
Morgan, Parker, Potts, Reed, Roberts, Scott, Stone, Thompson, Turner, Walker, Watson, Young, Appleby,
Bennett, Butler, Clark, Cooper, Duffy, Finch, Fisher, Garcia, Goodwin, Hopkins, Kaplan, Larsen, Mason,
Nguyen, Olsen, Patel, Quinn, Russo, Singh, Tanaka, Underwood, Vargas, Winter, Yates, Zimmer, Barnes, Crumb,
Dalton, Ellis, Flint, Grant, Hobbs, Ibrahim, Jansen, Kowalski
[sizeadj adj]
big, tiny, huge, long, tall, giant, large, short, wide, thin, fat, round, enormous, chubby, narrow, skinny,
deep, thick, high, massive, plump, miniature, gigantic, medium, slim, mini, tremendous, colossal, towering,
mighty, bulky, broad, hefty, immense, jumbo, king-sized, knee-high, lanky, lofty, mammoth, middle-sized,
minuscule, monumental, oversized, petite, pint-sized, pocket-sized, roomy, sizable, slender, spacious,
squat, stocky, stout, stubby, stumpy, teeny, vast, wee, whopping, bite-sized, full-sized, life-sized,
titanic
[color adj]
red, blue, green, yellow, white, pink, brown, black, purple, orange, gray, golden, silver, dark blue, light
green, violet, turquoise, scarlet, crimson, ivory, lilac, beige, maroon, navy blue, emerald green, peach,
rosy, copper, bronze, amber, teal, tan, cream, lime green, ruby red, sky blue, olive green, magenta, indigo,
lemon yellow, coral, khaki, mauve, snow white, apple green, apricot, aqua, ash gray, baby blue, black and
white, blackberry blue, blood orange, brick red, bright red, butter yellow, canary yellow, caramel,
charcoal, cherry red, chestnut, chocolate brown, cobalt, dark red, dove gray, forest green, fuchsia, ginger,
grass green, hazel, honey, ink blue, jet black, lavender, light blue, mahogany, mint green, mustard, neon
green, ochre, pale blue, pale pink, pearl, plum, powder blue, rainbow, raspberry, royal blue, rust red,
saffron, salmon, sandy, sapphire, sepia, slate, strawberry red, tangerine, tawny, vanilla, walnut, wheat,
wine red
[prettyadj adj]
shiny, pretty, beautiful, new, nice, soft, old, colorful, special, lovely, bright, clean, warm, fancy,
magic, strong, smooth, fluffy, sparkly, fine, wonderful, cute, perfect, strange, fuzzy, wooden, funny, cozy,
striped, interesting, sturdy, elegant, glittery, spotted, unusual, valuable, amazing, rare, precious,
painted, polished, dotted, handmade, gleaming, glowing, graceful, charming, dazzling, delicate, dainty,
crooked, rusty, dusty, worn, woolly, velvety, silky, checkered, curly, bumpy, rough, ancient, battered,
modern, splendid, marvelous, mysterious, plain, simple, ordinary, unique, favorite, famous, fabulous,
floppy, fragile, furry, hollow, knitted, lacy, leathery, lucky, magnificent, neat, odd, peculiar, plastic,
plush, quaint, quilted, ragged, scratched, secondhand, shimmering, sleek, slippery, spiky, square, squeaky,
sticky, stretchy, tattered, tidy, transparent, twisted, useful, waterproof, wavy, wobbly, wrinkled, zigzag,
antique, artistic, balanced, beaded, bendy, blunt, braided, brittle, buckled, carved, chipped, clear,
coated, coiled, collapsible, comfortable, complicated, compact, costly, cracked, cubic, curved, cushioned,
damp, decorated, dented, detailed, diamond-shaped, dog-eared, durable, egg-shaped, elastic, embroidered,
enchanted, engraved, exotic, exquisite, faded, fashionable, feathery, festive, flashy, flat, flexible,
flimsy, flowery, foamy, folded, forgotten, frayed, frilly, frosty, glamorous, glassy, glossy, gilded, grand,
hairy, handy, hard, heart-shaped, historic, homely, iron, jagged, jangly, jeweled, jingling, jointed,
knotted, lavish, layered, lightweight, limp, loose, lopsided, lumpy, luxurious, mended, metal, mossy, muddy,
mystical, noble, old-fashioned, ornate, oval, padded, patched, patterned, pebbly, perfumed, pointy,
polka-dot, powdery, prickly, puffy, rattling, reversible, ribbed, rickety, rigid, royal, rubbery, ruffled,
rugged, rustic, satin, scented, scratchy, scruffy, secret, see-through, shabby, shaggy, shapeless, sharp,
shatterproof, slanted, slick, sloppy, snug, solid, sophisticated, spare, spiral, spongy, spotless, springy,
stained, starry, steel, stiff, straight, streaky, stringy, supple, swirly, symmetrical, tangled, tapered,
tasseled, threadbare, tight, timeworn, tin, torn, traditional, tricolor, upside-down, vintage, warped,
watertight, waxy, weathered, well-made, well-worn, wiry, woven, zippered
[niceadj adj]
beautiful, nice, pretty, wonderful, good, lovely, great, funny, amazing, perfect, clever, fine, strange,
cute, cozy, bright, neat, fancy, brilliant, charming, marvelous, splendid, magnificent, fantastic, fabulous,
elegant, terrific, superb, sweet, impressive, delightful, smart, jolly, unusual, glorious, remarkable,
stunning, striking, majestic, dazzling, enchanting
[kindadj adj]
kind, happy, brave, good, friendly, smart, curious, clever, gentle, polite, helpful, cheerful, playful,
honest, quiet, shy, sweet, careful, patient, wise, silly, adventurous, busy, energetic, generous, loving,
joyful, imaginative, thoughtful, lively, hardworking, caring, creative, bold, calm, jolly, merry, obedient,
proud, daring, fearless, loyal, humble, modest, cheeky, chatty, clumsy, dreamy, eager, fast, gifted, messy,
noisy, peaceful, quick, restless, sleepy, stubborn, talented, talkative, tough, trusting, warm-hearted,
witty, mischievous, independent, impatient, inventive, courageous, confident, considerate, bashful,
attentive, ambitious, affectionate, agile, bubbly, determined, easygoing, forgetful, forgiving,
good-natured, gracious, grateful, inquisitive, nimble, observant, optimistic, outgoing, rowdy, sensible,
sensitive, sincere, spirited, stylish, able, active, alert, amiable, amusing, athletic, big-hearted, brainy,
brilliant, carefree, cautious, comical, compassionate, competent, composed, conscientious, contented,
cool-headed, cooperative, cordial, courteous, crafty, cultured, dedicated, decent, dependable, devoted,
dignified, diligent, diplomatic, disciplined, dutiful, earnest, eccentric, educated, eloquent, enterprising,
enthusiastic, even-tempered, excitable, experienced, fair, faithful, fidgety, focused, fun-loving, gallant,
giggly, giving, gleeful, gutsy, handsome, happy-go-lucky, heroic, high-spirited, hopeful, hospitable,
idealistic, impish, impulsive, industrious, innocent, intelligent, jaunty, jovial, kindhearted,
knowledgeable, laid-back, lighthearted, likable, logical, long-legged, lovable, mature, meek, mellow,
methodical, mild-mannered, naive, natural, neighborly, open-minded, organized, passionate, peace-loving,
perky, persistent, philosophical, pleasant, plucky, practical, precise, quick-witted, quirky, rational,
reasonable, refined, relaxed, reliable, reserved, resourceful, respectful, responsible, rosy-cheeked,
self-confident, selfless, sharp-eyed, skillful, soft-hearted, soft-spoken, sprightly, steadfast, steady,
streetwise, strong-willed, studious, sunny, surefooted, sympathetic, tactful, tender, tenacious, thorough,
thrifty, tireless, tolerant, tranquil, trustworthy, truthful, unafraid, unassuming, unselfish, upbeat,
valiant, versatile, vigilant, vivacious, watchful, well-behaved, whimsical, wide-eyed, wild-haired, willing,
winsome, youthful, zany, zealous
[meanadj adj]
mean, big, grumpy, greedy, angry, scary, naughty, selfish, rude, bossy, jealous, loud, wild, nasty, cruel,
wicked, lazy, bad, fierce, hungry, sly, unkind, proud, impolite, sneaky, spiteful, stingy, unfriendly,
boastful, bad-tempered, cranky, cunning, dishonest, disobedient, envious, gloomy, gruff, harsh, hostile,
ill-tempered, moody, pushy, reckless, sulky, sour, tricky, vain, vicious, unpleasant, thoughtless, stern,
snappy, quarrelsome, ornery, menacing, bristly, bitter, aggressive, arrogant, brutal, careless,
cold-hearted, crabby, crooked, deceitful, domineering, fiery, foul, frightful, ghastly, grouchy, hateful,
haughty, heartless, hotheaded, ill-mannered, insolent, irritable, malicious, merciless, miserly, nosy,
obnoxious, overbearing, pesky, pitiless, pompous, prickly, rash, resentful, rough, ruthless, savage,
scheming, short-tempered, shrewd, slimy, snarling, snobbish, stubborn, surly, thieving, threatening,
treacherous, troublesome, two-faced, ungrateful, unruly, vengeful, violent, warlike, wily
[posfeel adj]
happy, excited, proud, glad, thankful, surprised, cheerful, joyful, grateful, pleased, delighted, amazed,
relieved, calm, safe, content, hopeful, loved, thrilled, lucky, comfortable, warm inside, overjoyed,
satisfied, brave, merry, jolly, peaceful, curious, confident, relaxed, cozy, ecstatic, astonished,
fascinated, charmed, enchanted, encouraged, gleeful, impressed, inspired, joyous, playful, refreshed,
blissful, carefree, elated, eager, fulfilled, at ease, bouncy, bubbly, buoyant, captivated, chirpy, clever,
dazzled, determined, dreamy, energetic, entertained, exhilarated, fantastic, festive, fortunate, friendly,
full of energy, full of hope, giddy, healthy, honored, important, in good spirits, intrigued, invigorated,
jubilant, lighthearted, lively, moved, needed, optimistic, perky, powerful, privileged, radiant, ready for
anything, reassured, renewed, rested, revived, secure, serene, snug, soothed, special, spirited, splendid,
strong, sunny, supported, tranquil, triumphant, trusting, understood, untroubled, upbeat, valued,
victorious, wide awake, worthy, zestful
[negfeel adj]
sad, scared, angry, worried, upset, tired, lonely, afraid, nervous, sorry, hungry, bored, confused,
frightened, ashamed, disappointed, cold, unhappy, mad, embarrassed, guilty, hurt, jealous, shy, grumpy,
frustrated, anxious, miserable, gloomy, helpless, sick, terrible, weak, awful, puzzled, troubled, uneasy,
alarmed, annoyed, cross, discouraged, dizzy, exhausted, foolish, furious, heartbroken, homesick, hopeless,
horrified, impatient, insecure, irritated, left out, panicky, petrified, restless, shaken, silly, sleepy,
sorrowful, startled, stuck, tearful, terrified, uncomfortable, unlucky, weary, wretched, glum, downhearted,
distressed, dismayed, shaky, sore, timid, aching, abandoned, agitated, aghast, apologetic, appalled,
baffled, bewildered, blue, brokenhearted, betrayed, bitter, cheated, chilly, cheerless, clumsy, concerned,
crushed, deflated, defeated, dejected, depressed, desperate, despondent, disgusted, disheartened,
dissatisfied, doubtful, down, drained, dreary, drowsy, edgy, empty, envious, faint, fed up, fearful,
flustered, forgotten, forlorn, fragile, fretful, frozen, grieved, grim, grouchy, hesitant, hollow,
humiliated, ignored, ill, in despair, incomplete, indignant, inferior, jittery, jumpy, lazy, listless,
livid, low, melancholy, misunderstood, moody, neglected, numb, offended, out of breath, overwhelmed,
paralyzed, perplexed, powerless, rattled, regretful, rejected, remorseful, reluctant, rotten, scolded,
self-conscious, shocked, shattered, sleepless, spooked, stressed, stunned, sullen, suspicious, tense,
thirsty, threatened, tormented, trapped, unappreciated, uncertain, undecided, uneasy inside, unloved,
unsafe, unsure, unwanted, unwell, useless, vulnerable, wary, weepy, worn out, worthless, wounded
[tasteadj adj]
yummy, sweet, tasty, delicious, fresh, warm, big, juicy, hot, ripe, crunchy, soft, creamy, sticky, round,
crispy, golden, cold, sour, salty, spicy, fluffy, healthy, rich, chewy, crumbly, buttery, fruity, nutty,
sugary, tangy, bitter, sizzling, steaming, toasted, frosted, homemade, mouthwatering, flaky, gooey, lumpy,
overripe, peppery, savory, scrumptious, smoky, squishy, tart, tender, wholesome, zesty, minty, moist, mild,
flavorful, heavenly, aromatic, baked, barbecued, boiled, bubbly, candied, caramelized, cheesy, chilled,
chocolatey, chopped, cinnamony, citrusy, crumbled, crusty, dainty, delectable, dried, dry, earthy, exotic,
feathery, filling, fine, fizzy, flowery, fragrant, freshly picked, fried, frothy, frozen, garlicky, gingery,
glazed, grainy, grilled, herby, honeyed, icy, jammy, lemony, light, lukewarm, luscious, malty, marbled,
marinated, mellow, nourishing, organic, oven-fresh, perfect, pickled, piping hot, plain, powdery, puffy,
pungent, roasted, rustic, salted, saucy, seasoned, silky, smooth, speckled, spongy, stuffed, sun-dried,
sweetened, syrupy, tempting, thick, tropical, unripe, vegetarian, velvety, vinegary, watery, wild, yeasty
[weather adj]
sunny, warm, rainy, cold, windy, hot, bright, cloudy, beautiful, nice, snowy, cool, lovely, foggy, stormy,
gray, clear, chilly, fine, breezy, wet, frosty, misty, dark, quiet, mild, gloomy, icy, drizzly, freezing,
humid, calm, crisp, glorious, peaceful, perfect, pleasant, scorching, steamy, sweltering, blustery, dreary,
hazy, muggy, overcast, autumnal, balmy, bitter, blazing, boiling, bracing, changeable, cheerful, cloudless,
crystal-clear, damp, dusty, fresh, gentle, golden, grim, gusty, heavenly, long, magical, mellow, moonlit,
murky, pale, rosy, showery, silent, sleety, slow, smoky, soggy, special, starry, sticky, still, strange,
sultry, sun-drenched, thundery, tropical, turbulent, unforgettable, wild, wintry, wonderful, springlike
[scaryadj adj]
dark, big, loud, scary, strange, cold, deep, black, spooky, creepy, gloomy, wild, old, empty, lonely, steep,
mysterious, horrible, terrible, sharp, silent, shadowy, eerie, gigantic, hollow, ghostly, grim, hairy,
howling, murky, rumbling, shaggy, slimy, thorny, twisted, ugly, unknown, wicked, windy, icy, monstrous,
dreadful, dim, damp, crumbling, bottomless, haunted
[happyly word]
happily, excitedly, gently, with a smile, joyfully, proudly, cheerfully, kindly, with a big smile, warmly,
softly, sweetly, loudly, eagerly, brightly, with delight, gladly, politely, merrily, playfully, thankfully,
with a giggle, with joy, lovingly, gleefully, with a grin, with a wink, with a laugh, with sparkling eyes,
with pride, in a cheerful voice, in a warm voice, delightedly, enthusiastically, hopefully, tenderly,
gratefully, jokingly, with a nod, with a chuckle, patiently, calmly, with a bow, with twinkling eyes,
confidently, encouragingly, with great excitement, in a kind voice, graciously, admiringly, adoringly,
affectionately, amicably, breathlessly, briskly, calmly enough, clearly, cleverly, comfortingly,
compassionately, considerately, contentedly, cordially, courteously, devotedly, dreamily, earnestly,
ecstatically, fondly, from the heart, full of hope, generously, goodheartedly, helpfully, honestly, humbly,
in a clear voice, in a deep voice, in a funny voice, in a high voice, in a loud voice, in a sing-song voice,
in good spirits, innocently, jovially, jubilantly, knowingly, lightheartedly, modestly, mysteriously,
optimistically, passionately, peacefully, quickly, reassuringly, respectfully, sincerely, soothingly,
spiritedly, sympathetically, teasingly, thoughtfully, triumphantly, truthfully, understandingly, vividly,
wholeheartedly, wisely, with a blush, with a cheer, with a curtsy, with a hug, with a little dance, with a
pat on the back, with a shout, with a skip, with a song, with a whistle, with both hands up, with care, with
confidence, with energy, with feeling, with great pride, with love, with open arms, with red cheeks, with
shining eyes, with surprise, with wide eyes, with wonder, without thinking, zestfully
[sadly word]
sadly, quietly, with wet eyes, softly, with a sigh, nervously, in a small voice, angrily, slowly, with a
frown, timidly, weakly, with a sob, shyly, in a shaky voice, fearfully, anxiously, gloomily, grumpily,
crossly, unhappily, miserably, bitterly, helplessly, hopelessly, tearfully, with a sniff, in a whisper, with
a pout, sorrowfully, mournfully, worriedly, with a shiver, hoarsely, impatiently, in a sad voice, in a low
voice, glumly, faintly, with a trembling lip, regretfully, bashfully, blankly, brokenly, coldly, darkly,
dejectedly, desperately, despondently, dimly, doubtfully, drowsily, dully, emptily, feebly, fiercely,
flatly, forlornly, frantically, gravely, grimly, grudgingly, gruffly, guiltily, hesitantly, in a broken
voice, in a hoarse voice, in a quiet voice, in a thin voice, in a tired voice, in a weak voice, in despair,
in fear, in horror, in panic, in tears, irritably, lifelessly, listlessly, meekly, moodily, numbly,
painfully, pitifully, pleadingly, reluctantly, remorsefully, sheepishly, shortly, sleepily, sourly, sternly,
stiffly, stubbornly, sulkily, sullenly, tensely, tiredly, uncertainly, uneasily, wearily, with a cough, with
a gasp, with a gulp, with a heavy heart, with a lump in the throat, with a moan, with a pale face, with a
quiver, with a red face, with a shudder, with a sniffle, with a stutter, with a whimper, with downcast eyes,
with great sadness, with shaking hands, with trembling knees, without hope, woefully
[carefully word]
carefully, slowly, quietly, gently, softly, bravely, quickly, patiently, silently, calmly, skillfully,
neatly, boldly, cautiously, steadily, nervously, curiously, secretly, smoothly, firmly, tightly, cleverly,
gingerly, lightly, wisely, delicately, thoughtfully, diligently, gracefully, attentively, precisely,
tirelessly, stealthily, tenderly, warily, briskly, discreetly, eagerly, expertly, deftly, methodically,
nimbly, doggedly, daintily, intently, soundlessly, busily, clumsily, accurately, actively, artfully,
attentively enough, bit by bit, by hand, capably, carefully enough, calmly and slowly, closely, constantly,
cunningly, decidedly, determinedly, dutifully, easily, efficiently, elegantly, endlessly, energetically,
evenly, faithfully, feverishly, fearlessly, fiercely, fluidly, forcefully, furiously, gallantly, hard,
harder and harder, heartily, heroically, hopefully, imaginatively, industriously, ingeniously, inch by inch,
jointly, laboriously, leisurely, little by little, loudly, masterfully, meticulously, mightily, noiselessly,
obediently, painstakingly, peacefully, persistently, powerfully, purposefully, resolutely, restlessly,
rhythmically, sensibly, seriously, shakily, sluggishly, softly and slowly, solemnly, strongly, stubbornly,
sturdily, systematically, tenaciously, thoroughly, tidily, unwaveringly, urgently, valiantly, vigorously,
vigilantly, with both hands, with care, with patience, with skill, zealously
[quickly word]
quickly, right away, at once, as fast as possible, suddenly, slowly, all the way, together, without
stopping, swiftly, hurriedly, immediately, in a hurry, quietly, straight away, rapidly, wildly,
breathlessly, briskly, eagerly, instantly, in no time, like the wind, without a word, on tiptoe, promptly,
speedily, in a flash, side by side, with great care, frantically, hastily, anxiously, noisily, with big
steps, in small steps, step by step, on and on, blindly, recklessly
[go verb]
run, walk, go, hurry, skip, hop, rush, race, wander, dash, march, jog, stroll, head, climb, crawl, sneak,
trot, gallop, tiptoe, creep, stride, hike, scurry, scamper, sprint, bounce, drift, glide, zoom, travel,
dart, speed, trudge, limp, stumble, stagger, shuffle, scramble, prance, plod, pedal, leap, flit, bolt,
bustle, frolic, hasten, jaunt, journey, lumber, meander, mosey, parade, pace, romp, saunter, scoot, scuttle,
stomp, strut, swagger, toddle, traipse, tramp, trek, trundle, venture, waddle, wobble, zip, zigzag, amble,
fly, trip along, dawdle, flutter, flounce, hike along, hobble, hop along, inch, jolt, lope, lurch, march
along, patter, plow, potter, rove, rumble, sashay, scuttle along, shamble, sidle, skid, skim, slink,
slither, slog, sneak along, spring, stalk, steer, stomp along, straggle, totter, waltz, whiz, wriggle
[hobby verb]
play, sing, dance, draw, run, paint, read, jump, swim, climb trees, explore, ride bikes, build things, tell
stories, cook, bake, write, skate, fish, hike, play games, garden, swing, slide, laugh, hop, make music,
collect stones, count stars, pick flowers, whistle, knit, camp, sew, skip, fly kites, feed the birds, look
at clouds, solve puzzles, play hide and seek, catch bugs, blow bubbles, make friends, tell jokes, dig holes,
learn new things, chase butterflies, splash in puddles, splash around, ski, sail, row, juggle, do magic
tricks, play the drums, play catch, play chess, play pretend, ride horses, roller skate, watch birds, watch
trains, travel, study maps, collect stamps, collect shells, gather nuts, grow vegetables, invent things,
make pancakes, fold paper, jump rope, roll down hills, build sandcastles, build snowmen, carve wood, hum,
daydream, do cartwheels, do puzzles, dress up, act in plays, write poems, take photos, surf, wrestle,
somersault, yodel, tap dance, weave baskets, bird-watch, polish stones, press flowers, play marbles, play
tag, stargaze, decorate cakes, act, arrange flowers, balance on logs, bowl, build bridges, build dams, catch
fish, catch snowflakes, chase bubbles, chat, collect buttons, collect coins, collect feathers, color,
compose songs, count cars, count clouds, cuddle kittens, cycle, dig for worms, dive, do crafts, draw maps,
drum, eat cake, embroider, feed ducks, fence, gallop around, giggle, go boating, go camping, go on picnics,
grow flowers, help out, hunt for treasure, invent games, invent songs, iron shirts, jog, jump over puddles,
keep secrets, kick balls, learn languages, listen to music, listen to stories, look for crabs, look for
fossils, make bracelets, make cards, make kites, make masks, make soup, make wishes, mix colors, model clay,
paddle, paint stones, peek into nests, pet animals, pick apples, pick berries, play badminton, play ball,
play baseball, play cards, play checkers, play dominoes, play football, play hopscotch, play leapfrog, play
music, play ping-pong, play soccer, play tennis, play the flute, play the guitar, play the piano, play the
violin, play tricks, play with blocks, play with clay, play with dolls, play with puppets, play with sand,
play with trains, polish shells, practice magic, race snails, read comics, read maps, recite poems, roam
around, row boats, run races, sail paper boats, scribble, search for clues, shop, sing songs, sit by the
fire, skip stones, sled, sleep late, smell flowers, sort buttons, spin tops, spin yarn, stack blocks,
stretch, study birds, swap stickers, sweep, talk to animals, talk to plants, tell riddles, tend the garden,
throw snowballs, tickle babies, train puppies, travel by train, try new foods, tumble, twirl, visit
neighbors, wade in the creek, walk on stilts, walk in the rain, watch clouds, watch fireflies, watch the
rain, watch the sunset, watch whales, water plants, wear costumes, weave, whittle wood, win games, write
letters, write songs, yell into caves
[weep verb]
cry, sob, say, whisper, sigh, call, wail, moan, whimper, mumble, groan, gasp, shout, scream, mutter,
stammer, howl, plead, sniff, yell, stutter, whine, murmur, grumble, squeak, shriek, squeal, blubber, croak,
bawl, bellow
[gladly word]
happily, excitedly, joyfully, proudly, cheerfully, warmly, loudly, brightly, merrily, softly, gladly,
gleefully, a little, a lot, playfully, wildly, eagerly, sweetly, again and again, for a long time, with joy,
with delight, with pride, kindly, shyly, politely, gratefully, thankfully, heartily, contentedly,
blissfully, dreamily, jubilantly, triumphantly, radiantly, sheepishly, all day long, blissfully enough,
bouncily, broadly, carelessly, dizzily, enthusiastically, exuberantly, fondly, from ear to ear, giddily,
goofily, gracefully, hilariously, in the sun, inwardly, jauntily, joyously, knowingly, like crazy, lovingly,
mischievously, noisily, outwardly, peacefully, proudly enough, secretly, serenely, spontaneously, tenderly,
wholeheartedly, with all the others, with both arms up, with closed eyes, with relief, with tears of joy,
zestfully
[badly word]
sadly, quietly, a little, loudly, bitterly, softly, miserably, for a long time, silently, all alone,
helplessly, unhappily, nervously, all night, again and again, gloomily, hopelessly, anxiously, without a
word, in the corner, pitifully, desperately, uncontrollably, mournfully, fearfully, glumly, inconsolably,
wearily, crossly, angrily, for hours, more and more, under a blanket, abruptly, at the window, behind the
door, bleakly, despairingly, dismally, forlornly, grimly, heavily, in bed, in secret, in silence, like a
baby, like a small child, longingly, noisily, on the floor, on the stairs, over and over, quite a lot,
sorrowfully, sulkily, tearfully, until bedtime, until dark, wildly
[see verb]
see, find, notice, spot, hear about, discover, look at, watch, meet, come across, pass, find out about,
stare at, point at, study, spy, observe, admire, glimpse, examine, count, recognize, follow, approach,
visit, greet, wave at, sketch, photograph
[holdv verb]
hold, hug, carry, clean, wash, touch, show, hide, keep, love, shake, squeeze, polish, pat, kiss, wipe, dust,
brush, grab, drop, lift, fix, hold up, wrap, decorate, examine, admire, inspect, cradle, clutch, stroke,
toss, twirl, spin, unwrap, stuff, scrub, sniff, tap, tickle, treasure, rinse, balance, cuddle, dangle,
adjust, arrange, bounce, brandish, button up, caress, cherish, clasp, cover, crumple, drag, drape, dry,
embrace, empty, fasten, finger, flip, fold, gather, gift-wrap, grip, handle, hang up, hoist, lay down,
loosen, lower, mend, nudge, pack, pinch, place, pluck, poke, press, prod, pull, put away, put on, rearrange,
remove, restore, rub, scratch, seize, sew up, shine, shove, smooth, smudge, snatch, soak, stow, straighten,
stretch, swing, switch, tilt, tidy up, touch up, trim, tuck in, tug at, turn, twist, unfold, untie, unzip,
wring out, yank
[makev verb]
make, build, draw, paint, create, design, cut out, put together, craft, plan, invent, carve, glue, prepare,
decorate, fold, weave, finish, assemble, construct, sketch, shape, print
[eatv verb]
eat, taste, share, munch, try, gobble up, nibble, chew, bite into, finish, enjoy, smell, swallow, devour,
munch on, gulp down, lick, crunch, sample, savor, chomp, gnaw, wolf down, peck at, slurp, feast on, relish,
snack on, nibble on, polish off
[cookv verb]
bake, cook, make, prepare, mix, stir, slice, fry, boil, cut, serve, decorate, chop, roast, grill, heat,
toast, mash, peel, steam, season, knead, whip up, blend, sprinkle, spread, pour, grate, squeeze, simmer,
marinate, glaze, garnish, ladle out, freeze
[lookv verb]
look, stare, peek, gaze, glance, peer, point, blink, wave, squint, listen, sniff, shout, whistle, call,
climb up, search, frown, glare, gape, scan around, poke around, tiptoe, tug, rummage around, feel around,
hunt around, snoop around
[smilev verb]
smile, laugh, giggle, clap, cheer, nod, grin, jump up and down, dance, wave, hug, sing, beam, chuckle,
whistle, bounce, twirl, shout for joy, hum a tune, blush, chortle, hop around, jump for joy, leap, rejoice,
spin around, whoop, high-five, bow, skip, hoot, yelp with joy, wiggle, hiccup, squeal, applaud, bubble over,
burst out laughing, caper, cavort, celebrate, chant, cheer up, chirp, click both heels, coo, curtsy, do a
cartwheel, do a little dance, frisk, guffaw, hoot with joy, jig, jiggle, kick up both heels, lean back, leap
up, make a funny face, nod along, prance, purr, relax, roar with laughter, rock back and forth, roll on the
ground, rub both hands, sing along, skip about, snap two fingers, sparkle, sway, swing both arms, throw a
hat up, throw both arms up, unwind, wave both arms, whirl, whoop with joy, wink, wriggle, yodel
[cryv verb]
cry, sob, weep, shiver, tremble, sniffle, shake, scream, sigh, frown, pout, blush, whimper, wail, freeze,
gulp, groan, moan, sulk, stomp, gasp, shudder, cower, flinch, whine, mope, quiver, wince, bawl, blubber,
grumble, fret, sweat, stutter, stammer, squirm, yelp, panic, quake, fidget, grimace, cringe, sniff, blink
back tears, break down, burst into tears, catch a breath, clench both fists, collapse, cover both ears,
crouch, crumple, curl up, despair, droop, duck, fall silent, falter, flush, fume, glower, go pale, grieve,
hang back, hesitate, huddle, lament, lie down, look away, look down, lose heart, mourn, pace, rage, recoil,
retreat, run in circles, scowl, seethe, shake all over, shed a tear, shrink back, shriek, shuffle, sink
down, slouch, slump, snivel, sob out loud, sweat all over, swallow hard, tense up, tiptoe away, toss and
turn, turn pale, turn red, twitch, waver, weep out loud, wilt, wither, worry, wring both hands
[say verb]
answer, reply, shout, whisper, call, cry, laugh, explain, exclaim, add, giggle, yell, cheer, call out,
announce, mumble, respond, declare, murmur, squeak, chirp, agree, promise, suggest, sing, state, remark,
chuckle, point out, blurt out, croak, grin, holler, hum, insist, mutter, roar, shriek, smile, squeal,
stammer, pipe up, observe, admit, gasp, grunt, joke, note, purr, rejoice, repeat, sigh, sniff, snort, beam,
bellow, chime in, acknowledge, advise, affirm, announce again, argue, assure everyone, begin, boast,
breathe, bubble, cackle, caution, chant, chatter, chortle, claim, cluck, coax, comfort everyone, comment,
concede, conclude, confess, confide, confirm, coo, crow, cry out, decide, echo, emphasize, encourage
everyone, greet everyone, growl, gush, hint, hoot, inform everyone, interject, interrupt, jest, joke again,
marvel, mention, object, offer, order, pledge, predict, proclaim, prompt, propose, protest, rasp, rattle on,
reassure everyone, reckon, remind everyone, report, retort, reveal, share, snap, snicker, snigger, speak up,
splutter, sputter, state again, stress, stutter, tease, thunder, trill, twitter, urge, utter, vow, wail,
warn, whimper, whine, whoop, wink, wonder, yelp
[ask verb]
wonder, inquire, want to know, say, whisper, shout, call, question, beg, plead, cry, mumble, puzzle, ask
again, demand
[helpv verb]
push, pull, lift, carry, dig, work, search, move, climb, hold on, try, reach, drag, hurry, paddle, tug,
listen, sweep, help, look, heave, row, swim, steer, hammer, shovel, gather, stretch, balance, crank, scoop,
hoist, haul, scrub, stack, tow, wade, roll, attempt it, build, chip away, chisel, collect, count, drill,
fetch, fiddle, inch forward, labor, lean, lug, mark, measure, mend, mix, mop, nudge, pedal, persist, pick,
plow, poke, polish, pound, practice, pry, press, prop, rake, rub, sand, saw, scrape, scratch, screw, sew,
shift, shove, smooth, squeeze, strain, strive, struggle, tap, tinker, toil, twist, unpack, untangle, wedge,
wiggle, wipe, yank
[soundv verb]
sing, chirp, buzz, hum, rustle, whistle, ring, bark, splash, quack, croak, squeak, hoot, roar, moo, rumble,
crackle, click, tick, snore, meow, purr, neigh, rattle, tap, thump, hiss, howl, boom, clang, clatter, coo,
creak, crow, drip, flap, flutter, gurgle, honk, jingle, murmur, patter, rattle on, snap, swish, tinkle,
toot, trill, twitter, whir, whoosh, bleat, bray, caw, chatter, cluck
[magicthing noun]
wand, lamp, stone, key, ring, hat, seed, book, mirror, potion, carpet, pencil, crystal, box, feather, flute,
pair of boots, door, spoon, coat, lantern, teapot, acorn, paintbrush, broom, bell, bottle, umbrella, marble,
pebble, crown, harp, drum, clock, compass, cloak, necklace, bean, cauldron, bracelet, fiddle, whistle, pot,
map, ladder, pumpkin, candle, shell, kite, button, amulet, basket, belt, blanket, bowl, brooch, bubble pipe,
button box, candlestick, card, chair, chest, coin, comb, crystal ball, cup, dice cup, dream catcher, fan,
fishing rod, flowerpot, gem, glove, goblet, gong, hairbrush, hammer, hourglass, inkwell, jar, kettle,
lantern flower, leaf, locket, medallion, needle, orb, pearl, pen, pillow, puppet, purse, quill, rattle,
ribbon, riddle book, rope, scarf, scroll, shield, shoe, snow globe, spinning wheel, staff, star, sword,
telescope, thimble, top hat, trumpet, violin, watch, whisk
[monster noun]
dragon, monster, ghost, giant, troll, witch, ogre, fairy, goblin, elf, unicorn, mermaid, dinosaur, robot,
alien, gnome, pixie, genie, wizard, phantom, shadow, sea serpent, snow giant, yeti, vampire, mummy,
skeleton, werewolf, bogeyman, leprechaun, phoenix, griffin, imp, sprite, dwarf, cyclops, centaur, swamp
monster, banshee, basilisk, beast, behemoth, bigfoot, boggart, brownie, chimera, cloud spirit, demon, fire
spirit, frost giant, gargoyle, golem, gorgon, gremlin, hobgoblin, hydra, ice queen, kelpie, kraken, lake
monster, manticore, minotaur, moon spirit, nymph, pegasus, poltergeist, river spirit, sandman, satyr,
selkie, siren, snow queen, spirit, sphinx, tooth fairy, warlock, water sprite, wood elf, wood spirit, zombie
[body noun]
hand, leg, arm, nose, knee, finger, toe, foot, ear, elbow, tooth, ankle, head, thumb, back, shoulder, wrist,
cheek, chin, heel, hip, neck, lip, tummy, forehead, shin, eyebrow
[material word]
wood, paper, sticks, blocks, sand, cardboard, stones, mud, bricks, snow, clay, leaves, string, boxes, cloth,
straw, glass, metal, wool, feathers, bark, buttons, beads, wire, tape, glue, pillows, blankets, shells,
pebbles, branches, twigs, cotton, foil, felt, bamboo, leather, planks, ribbons, yarn, plastic cups, old
tires, corks, bottle caps, papier-mache, logs, wax, aluminum, bones, bottles, broomsticks, burlap, canvas,
cans, chalk, charcoal, chopsticks, concrete, copper, cork, crates, denim, dough, driftwood, egg cartons,
envelopes, flour, fur, gravel, hay, ice, iron, jars, jelly, lace, lids, linen, marble, matchsticks, mirrors,
moss, nails, netting, newspaper, oak boards, old shirts, paint, paper bags, paper plates, pasta, pearls,
pencils, petals, pine cones, pipes, plaster, plywood, poles, popsicle sticks, reeds, rice, ropes, rubber,
sacks, sawdust, scrap metal, seaweed, sequins, shingles, silk, socks, soil, spoons, steel, sugar, tinsel,
toothpicks, towels, tree bark, tubes, turf, velvet, vines, wheels, wicker, woolen socks
[buildable noun]
tower, castle, house, boat, fort, robot, bridge, treehouse, birdhouse, nest, snowman, sandcastle, tent,
rocket, kite, raft, swing, dam, car, wall, train, doghouse, scarecrow, spaceship, cave, igloo, tunnel, sled,
playhouse, windmill, ladder, bench, ship, hut, wagon, clock, lighthouse, pyramid, maze, statue, theater,
bird feeder, puppet stage, slide, seesaw, go-kart, catapult, shelter, greenhouse, merry-go-round, palace,
dragon, well, beehive, barn, fountain, gate, zip line, stage, volcano, airplane, aqueduct, archway, ark,
balcony, bank, bird table, bookshelf, bunker, cabin, cable car, camp, canoe, carousel, chair, chicken coop,
cottage, cradle, crane, den, desk, dollhouse, dome, farm, fence, ferry, fish trap, garden, goal, helicopter,
hideout, hotel, jeep, jungle gym, kennel, kiosk, labyrinth, lookout, lemonade stand, marble run, market
stall, mill, monument, mouse house, museum, obstacle course, oven, pavilion, pier, pinwheel, planter, plow,
pond, puppet house, rabbit hutch, racetrack, radio, rocking chair, roller coaster, sailboat, scooter, seat,
shack, shop, signpost, skyscraper, snow cave, spaceport, stable, stairway, starship, steamboat, stool,
submarine, sundial, table, temple, tepee, throne, totem pole, trap, truck, village, volcano model, water
wheel, weather station, wheelbarrow, wigwam, zoo
[skill verb]
swim, ride a bike, fly, sing, dance, read, write, tie shoes, bake, skate, whistle, jump rope, climb, paint,
play the piano, ski, count to a hundred, cook, draw, juggle, fish, sew, catch a ball, throw a ball, play the
drum, do a cartwheel, hop on one leg, row, play the flute, play chess, knit, play the guitar, dive, sail,
build a fire, fold a paper crane, spell, play the violin, do a handstand, whittle, tie knots, read a map,
ride a horse, blow bubbles, plant a tree, play soccer, paddle a canoe, surf, use a hammer, set the table,
make pancakes, kick a ball, tell time, snap two fingers, yodel, braid hair, do a somersault
[contest noun]
race, dance contest, singing contest, swimming race, spelling bee, drawing contest, baking contest, talent
show, jumping contest, bike race, boat race, puzzle contest, costume contest, sack race, running race, chess
match, snowman contest, sandcastle contest, quiz, soccer match, sled race, treasure hunt, kite contest,
skating contest, tug of war, cooking contest, pumpkin contest, storytelling contest, hopping race, relay
race, climbing contest, joke contest, magic contest, pie contest, egg race, obstacle course, ball game, hide
and seek match, painting contest, poetry contest, wrestling match, egg hunt, turtle race
[chore verb]
clean up, wash the dishes, sweep the floor, feed the chickens, water the plants, set the table, make the
bed, rake the leaves, fold the clothes, carry the bags, bake bread, pick apples, wash the car, put away the
toys, feed the dog, cook dinner, dust, shovel the snow, plant seeds, paint the fence, hang up the clothes,
milk the cow, pack the bags, brush the horse, mop the floor, peel potatoes, sort the socks, take out the
trash, pull weeds, fix the roof, chop vegetables, polish the silver, wipe the table, stack the wood, mend
the nets, gather eggs, wind the clock, shine the shoes, iron the shirts, empty the bins, scrub the pots
[warned verb]
touch the stove, run near the road, go into the forest, climb the tall tree, talk to strangers, eat too much
candy, play with matches, open the door, go near the river, run with scissors, jump on the bed, swim alone,
cross the street alone, play with knives, feed the bear, leave the yard, lean out of the window, throw
stones, pull the cat's tail, skip breakfast, walk on the ice, open the gate, stay out late, eat the red
berries, poke the beehive, climb the wall, ride too fast, touch the cactus, splash the baby, wake the dog,
go into the cave, chase the geese, play near the well, tease the goat, drink the salty water, swing too
high, touch the hot pan, walk barefoot, stand on the chair, slam the door, tip the boat
[bad noun]
storm, flood, snowstorm, strong wind, thunderstorm, heavy rain, hailstorm, big wave, blizzard, whirlwind,
thick fog, cold snap, cloudburst, gale, mudslide, tornado, hurricane, downpour, drought, sandstorm, heat
wave
[party noun]
party, picnic, birthday party, parade, concert, show, feast, dance, surprise party, tea party, campfire,
puppet show, fair, game night, barbecue, festival, sleepover, costume party, pool party, garden party,
wedding, play, carnival, bake sale, pancake breakfast, fireworks show, ball, banquet, sing-along, story
hour, family reunion, pajama party, ceremony, anniversary, autumn fair, beach party, birthday lunch,
bonfire, breakfast in bed, brunch, celebration, costume ball, dance party, dinner party, fashion show,
flower show, garden fair, goodbye party, harvest feast, housewarming, kite festival, lantern walk, lunch,
masquerade, moonlight picnic, movie night, music night, open day, play date, puppet play, reunion, sack
race, singing night, spring ball, street party, summer fair, talent show, treasure hunt, waffle breakfast,
welcome party, winter fair
[decor word]
balloons, flowers, ribbons, candles, lights, streamers, flags, paper stars, banners, bows, glitter,
confetti, lanterns, paper chains, garlands, wreaths, sparklers, posters, party hats, napkins, tablecloths,
hearts, bells, garlands of leaves, pompoms, bells and bows, bunting, butterflies of paper, clay stars, corn
husks, crowns, feathers, fairy lights, festoons, fir branches, foil stars, gold stars, holly, ivy, kites,
lamps, leaves, mistletoe, mobiles, ornaments, painted eggs, paper birds, paper fans, paper flowers, paper
lanterns, paper roses, pennants, photos, pinecones, pinwheels, pumpkins, rosettes, shells, silver moons,
snowflakes, stickers, string lights, tassels, tinsel, torches, wind chimes
[ill word]
a cold, a fever, a cough, a sore throat, a tummy ache, a headache, a stuffy nose, the flu, a toothache, an
earache, chicken pox, a rash, the hiccups, a runny nose, a sore ankle, a bad sunburn, the measles, a swollen
toe, a fever and a cough, the mumps, a sprained wrist, a bee sting, a stiff neck, an upset stomach, a black
eye, hay fever
[cure word]
soup, medicine, tea with honey, a warm blanket, a big hug, a bandage, rest, warm milk, a story, ice, chicken
soup, lemon tea, cough syrup, a cool cloth, a long nap, fresh air, a hot bath, herbs, vitamins, a plaster,
peppermint tea, an ice pack, ginger tea, fresh oranges, a bowl of broth, a cup of cocoa, a soft pillow, some
ointment, a spoon of honey, a foot bath
[noise word]
a loud noise, a strange sound, a soft cry, a crash, a splash, a tiny voice, a knock, a bang, a squeak, a
growl, a whisper, a roar, a thump, a scream, a buzzing sound, a bark, a meow, a rustle, a creak, a howl, a
hiss, a whistle, a rumble, a chirp, a pop, a click, a boom, a sob, a shout, a scratching sound, a snore, a
sneeze, a giggle, a clang, a hoot, a snap, a sigh, a groan, a moan, a thud, a whoosh, a jingle, a clatter, a
yelp, a splatter, a croak, a twang, a whimper, a ticking sound, a dripping sound, a tap
[numb word]
two, three, many, some, five, four, ten, lots of, a few, six, seven, a hundred, eight, several, a dozen,
twelve, nine, countless, twenty, plenty of, a pair of, thousands of, fifty, at least ten, hundreds of,
eleven, fifteen, thirty, a crowd of, forty, a heap of
[years word]
three, four, five, six, seven, two, eight, nine, ten, eleven
[group noun]
family, class, village, neighborhood, team, town, group of friends, whole street, crowd, club, school, herd,
household, choir, band, scout troop, flock, island, kingdom, farm
[virtue word]
to be kind, to share, to listen, to be brave, to help others, to be careful, to tell the truth, to be
patient, to try again, to say sorry, to be a good friend, to work together, to never give up, to ask for
help, to be honest, to be polite, to forgive, to be thankful, to be gentle, to take turns, to follow the
rules, to think before acting, to keep a promise, to be generous, to trust friends, to stay calm, to be
yourself, to keep trying, to take care of things, to respect others, to be fair, to finish the work first,
to believe in magic, to speak up, to wait and see, to look both ways, to care for animals, to laugh at
mistakes, to be humble, to practice every day, to welcome strangers, to be tidy, to save for later, to be
content, to show mercy, to stand up for others, to be responsible, to be punctual, to be curious, to slow
down, to admit a mistake, to be a good listener, to be a good neighbor, to be cheerful, to be considerate,
to be different, to be fair to everyone, to be gentle with animals, to be happy for others, to be kind to
strangers, to be loyal, to be modest, to be on time, to be quick to forgive, to be satisfied, to be strong
inside, to believe in yourself, to clean up afterwards, to comfort the sad, to cheer others up, to dream
big, to eat slowly, to explore the world, to face every fear, to finish what was started, to give without
asking, to go outside, to hold hands, to include everyone, to keep calm, to laugh often, to learn from
mistakes, to lend a hand, to let others speak, to look after the weak, to look on the bright side, to love
nature, to make new friends, to mean what one says, to mind the weather, to obey good rules, to offer help,
to play fair, to plan ahead, to protect the forest, to put safety first, to read the signs, to save water,
to say please, to say thank you, to sleep enough, to smile at everyone, to speak softly, to stay close to
home, to stick together, to take a deep breath, to tell the whole story, to try new foods, to use kind
words, to value small things, to wait for the right moment, to warn others, to watch one's step, to wear a
helmet, to work hard
[goodthing word]
sharing, friendship, kindness, helping others, being brave, telling the truth, being patient, family, love,
listening, working together, honesty, trying new things, saying sorry, being careful, a good friend,
courage, hard work, practice, being different, teamwork, patience, generosity, forgiveness, trust, laughter,
politeness, imagination, gratitude, respect, curiosity, a kind word, being yourself, keeping promises, good
manners, a helping hand, loyalty, hope, wisdom, fairness, a calm mind, gentleness, cooperation, creativity,
determination, humor, modesty, responsibility, simple things, time together, adventure, a clean conscience,
a good book, a good laugh, a good night's sleep, a kind heart, a little help, a warm hug, an open mind,
asking questions, being a good sport, being generous, being gentle, being humble, being ready, being
together, caring for others, cheerfulness, clear thinking, common sense, compassion, confidence,
daydreaming, doing the right thing, effort, equality, faith, finding a way, fresh air, freedom, giving, good
advice, good planning, good timing, harmony, having fun, health, helping at home, home, inner strength,
integrity, joy, keeping calm, learning, losing with a smile, loving nature, making amends, making others
smile, mercy, music, neatness, nature, never giving up, open eyes, peace, persistence, playing fair,
punctuality, quiet time, reading, respecting nature, rest, safety, saying thank you, self-control, sharing
food, silence, simple kindness, small steps, sportsmanship, staying calm, sympathy, taking turns, thinking
ahead, tidiness, time with friends, tolerance, understanding, unity, waiting, warmth, welcoming others
[valuev word]
the best thing in the world, better than any toy, very important, the greatest gift, worth more than gold,
the secret of a happy life, stronger than fear, what makes a real hero, the key to happiness, more fun than
winning, always a good idea, like sunshine, the sweetest treasure, never a waste of time, a kind of magic,
good for the heart, what friends are for, harder than it looks, the best medicine, the start of every
adventure, better than being rich, the light in dark times, something nobody can steal
[insult word]
slowpoke, silly goose, scaredy-cat, baby, clumsy bear, crybaby, copycat, show-off, chatterbox, sleepyhead,
bigmouth, butterfingers, grouch, fussy pants, lazybones, meanie, troublemaker, bookworm, daydreamer, rascal,
little imp, know-it-all, party pooper
[exclaim word]
wow, oh, hooray, yay, hey, oh my, look, wait, yippee, ha ha, goodness, my goodness, oh boy, surprise,
wonderful, yum, aha, hurrah, great, yes, amazing, thank goodness, bravo, golly, gosh, fantastic, whee, mmm,
cool, super, perfect, hi there, good news, ta-da, whoopee, of course, guess what, dear me, splendid,
excellent, what a day, congratulations, well done, hip hip hooray, oh joy
[ohno word]
oh no, help, stop, ouch, oh dear, no, please, hey, go away, uh-oh, yuck, be careful, watch out, eek, wait,
alas, boo hoo, ow, oops, yikes, bad luck, what a mess, good grief, not again, hush, look out, come back,
argh, mercy, no fair, oh bother, phooey, too bad
[sky word]
the sun, the moon, the wind, the stars, the clouds, the rain, the sky, the snow, the rainbow, the breeze,
the mist, the sunset, the lightning, the fog, the sunrise, the thunder, the frost, the twilight
"""

_KINDS = ("she", "he", "noun", "verb", "adj", "word", "place")


def _weights(count: int) -> list[int]:
    """Integer weights that fall with the rank: 1e6 / (rank + 60)."""
    return [1_000_000 // (rank + 60) for rank in range(count)]


_PRONOUNS = {
    "she": {"he": "she", "him": "her", "his": "her", "self": "herself", "kid": "girl"},
    "he": {"he": "he", "him": "him", "his": "his", "self": "himself", "kid": "boy"},
}


def _forms(kind: str, words: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The plain words of a group and their other forms."""
    if kind in _PRONOUNS:
        return words, {form: [text] * len(words) for form, text in _PRONOUNS[kind].items()}
    if kind == "noun":
        return words, {"s": [english.plural(w) for w in words]}
    if kind == "verb":
        inflect = {"s": english.third_person, "ed": english.past, "ing": english.gerund}
        return words, {form: [function(w) for w in words] for form, function in inflect.items()}
    if kind == "adj":
        return words, {"er": [english.comparative(w) for w in words]}
    if kind == "place":
        pairs = [w.split(":") for w in words]
        plain = [place for _, place in pairs]
        return plain, {"at": [f"{p} the {w}" for p, w in pairs], "to": [f"to the {w}" for _, w in pairs]}
    return words, {}


def read_lexicons(text: str = WORDS) -> dict[str, Lexicon]:
    """The lexicons of a text in the format of `WORDS`."""
    lexicons = {}
    for block in text.strip().split("\n["):
        header, _, body = block.lstrip("[").partition("]\n")
        name, kind = header.split()
        if kind not in _KINDS:
            raise ValueError(f"lexicon {name!r}: unknown kind {kind!r}, one of {_KINDS}")
        words = [" ".join(w.split()) for w in body.split(",")]
        words, forms = _forms(kind, words)
        lexicons[name] = Lexicon(name, words, _weights(len(words)), forms)
    lexicons["breaks"] = Lexicon("breaks", ["\n", "\n\n"], [3, 2], {})
    return lexicons

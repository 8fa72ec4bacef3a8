"""The closed vocabulary of CHAIR: which words name which of the 80 COCO classes.

The published list (LisaAnne/Hallucination ``data/synonyms.txt`` at 6e4d33c, used unchanged by OPERA's
``chair.py`` at 61426ef) without repetitions. Its bugs are kept because the published scores have them:
" motor bike" and " cheesecake" carry a leading blank there, so they never match and are left out here;
"iPhone" cannot match lower-cased text, nor "stove top oven", three words, a merged pair.
"""

#: A class name and its synonyms on each line; an indented line continues the one before.
_LIST = """
person, girl, boy, man, woman, kid, child, chef, baker, people, adult, rider, children, baby, worker,
    passenger, sister, biker, policeman, cop, officer, lady, cowboy, bride, groom, male, female, guy,
    traveler, mother, father, gentleman, pitcher, player, skier, snowboarder, skater, skateboarder, foreigner,
    caller, offender, coworker, trespasser, patient, politician, soldier, grandchild, serviceman, walker,
    drinker, doctor, bicyclist, thief, buyer, teenager, student, camper, driver, solider, hunter, shopper,
    villager
bicycle, bike, unicycle, minibike, trike
car, automobile, van, minivan, sedan, suv, hatchback, cab, jeep, coupe, taxicab, limo, taxi
motorcycle, scooter, motor cycle, motorbike, moped
airplane, jetliner, plane, air plane, monoplane, aircraft, jet, airbus, biplane, seaplane
bus, minibus, trolley
train, locomotive, tramway, caboose
truck, pickup, lorry, hauler, firetruck
boat, ship, liner, sailboat, motorboat, dinghy, powerboat, speedboat, canoe, skiff, yacht, kayak, catamaran,
    pontoon, houseboat, vessel, rowboat, trawler, ferryboat, watercraft, tugboat, schooner, barge, ferry,
    sailboard, paddleboat, lifeboat, freighter, steamboat, riverboat, battleship, steamship
traffic light, street light, traffic signal, stop light, streetlight, stoplight
fire hydrant, hydrant
stop sign
parking meter
bench, pew
bird, ostrich, owl, seagull, goose, duck, parakeet, falcon, robin, pelican, waterfowl, heron, hummingbird,
    mallard, finch, pigeon, sparrow, seabird, osprey, blackbird, fowl, shorebird, woodpecker, egret,
    chickadee, quail, bluebird, kingfisher, buzzard, willet, gull, swan, bluejay, flamingo, cormorant, parrot,
    loon, gosling, waterbird, pheasant, rooster, sandpiper, crow, raven, turkey, oriole, cowbird, warbler,
    magpie, peacock, cockatiel, lorikeet, puffin, vulture, condor, macaw, peafowl, cockatoo, songbird
cat, kitten, feline, tabby
dog, puppy, beagle, pup, chihuahua, schnauzer, dachshund, rottweiler, canine, pitbull, collie, pug, terrier,
    poodle, labrador, doggie, doberman, mutt, doggy, spaniel, bulldog, sheepdog, weimaraner, corgi, cocker,
    greyhound, retriever, brindle, hound, whippet, husky
horse, colt, pony, racehorse, stallion, equine, mare, foal, palomino, mustang, clydesdale, bronc, bronco
sheep, lamb, ram, goat, ewe
cow, cattle, oxen, ox, calf, holstein, heifer, buffalo, bull, zebu, bison
elephant
bear, panda
zebra
giraffe
backpack, knapsack
umbrella
handbag, wallet, purse, briefcase
tie, bow, bow tie
suitcase, suit case, luggage
frisbee
skis, ski
snowboard
sports ball, ball
kite
baseball bat
baseball glove
skateboard
surfboard, longboard, skimboard, shortboard, wakeboard
tennis racket, racket
bottle
wine glass
cup
fork
knife, pocketknife, knive
spoon
bowl, container
banana
apple
sandwich, burger, sub, cheeseburger, hamburger
orange
broccoli
carrot
hot dog
pizza
donut, doughnut, bagel
cake, cupcake, shortcake, coffeecake, pancake
chair, seat, stool
couch, sofa, recliner, futon, loveseat, settee, chesterfield
potted plant, houseplant
bed
dining table, table, desk
toilet, urinal, commode, lavatory, potty
tv, monitor, televison, television
laptop, computer, notebook, netbook, lenovo, macbook, laptop computer
mouse
remote
keyboard
cell phone, mobile phone, phone, cellphone, telephone, phon, smartphone, iPhone
microwave
oven, stovetop, stove, stove top oven
toaster
sink
refrigerator, fridge, freezer
book
clock
vase
scissors
teddy bear, teddybear
hair drier, hairdryer
toothbrush
"""


def _words(block: str) -> list[str]:
    """Entries of a block, separated by commas or line ends."""
    return [word.strip() for word in block.replace("\n", ",").split(",") if word.strip()]


_CLASSES = [_words(line) for line in _LIST.replace("\n    ", " ").strip().splitlines()]
#: Word -> COCO class.
CLASS_OF = {word: words[0] for words in _CLASSES for word in words}

_PAIRS = """
air plane, baseball bat, baseball glove, cell phone, fire hydrant, hair drier, home plate, hot dog,
laptop computer, mobile phone, motor bike, motor cycle, parking meter, potted plant, sports ball, stop light,
stop sign, street light, suit case, teddy bear, tennis racket, traffic light, traffic signal, train track,
wine glass
"""
_ANIMALS = """
bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, animal, cub
"""
#: Two words that count as one -> what they count as. "home plate" and "train track" hide their parts; a baby
#: elephant is no person; "wine glas" is what one lemmatiser makes of wine glasses.
DOUBLE_WORDS = (
    {pair: pair for pair in _words(_PAIRS)}
    | {f"{age} {animal}": animal for age in ("baby", "adult") for animal in _words(_ANIMALS)}
    | {"passenger jet": "jet", "passenger train": "train"}
    | {"bow tie": "tie", "toilet seat": "toilet", "wine glas": "wine glass"}
)

#: Words whose form in -s NLTK's lemmatiser does not undo: WordNet 3.0 lacks the word, or prefers another
#: one ("vases" becomes "vas", "doggies" "doggy"). Captions that use these plurals escape CHAIR.
_PLURAL_LOST = """
biker, bluejay, brindle, children, coworker, doggie, firetruck, hairdryer, hot, knive, lenovo, longboard,
macbook, netbook, paddleboat, pitbull, potted, riverboat, sailboard, shortboard, skimboard, skis, smartphone,
solider, sports, stovetop, teddybear, televison, vase
"""
#: Other forms it does undo. "men" is missing on purpose: WordNet has a noun "men", so it stays as it is.
_IRREGULAR = """
airbuses airbus, babies baby, benches bench, buffaloes buffalo, buses bus, busses bus, calves calf,
children child, couches couch, dinghies dinghy, doggies doggy, ferries ferry, finches finch,
flamingoes flamingo, geese goose, gentlemen gentleman, glasses glass, grandchildren grandchild, huskies husky,
knives knife, ladies lady, lavatories lavatory, lorries lorry, mice mouse, minibuses minibus,
ostriches ostrich, oxen ox, pocketknives pocketknife, policemen policeman, ponies pony, potties potty,
puppies puppy, sandwiches sandwich, servicemen serviceman, skis ski, sports sport, tabbies tabby, taxies taxi,
teddies teddy, thieves thief, toothbrushes toothbrush, women woman
"""
_PARTS = {part for word in (*CLASS_OF, *DOUBLE_WORDS) for part in word.split()}
#: Plural -> singular for the words above and the parts of double words, as ``WordNetLemmatizer`` gives it for
#: nouns. Made once with NLTK 3.10.4 and WordNet 3.0, frozen here so that no data need be downloaded.
PLURALS = {f"{word}s": word for word in sorted(_PARTS.difference(_words(_PLURAL_LOST)))}
for _pair in _words(_IRREGULAR):
    _plural, _singular = _pair.split()
    PLURALS[_plural] = _singular

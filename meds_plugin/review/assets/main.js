// Wires the page: filters, keys, buttons, files.

const at = (id) => document.getElementById(id);
const facts = JSON.parse(at("facts").textContent);
const decisions = new Decisions(facts);
const pictures = new Pictures(facts);
const choice = { category: -1, decision: "all", order: "score" };
const grid = new Grid(facts, pictures, decisions, showCurrent);
const large = new Large(facts, pictures);
grid.selects = facts.selected.includes(0) || facts.thresholds.some((value) => value !== null);

function currentIndex() {
  return grid.indices.length ? grid.indices[grid.current] : -1;
}

// Shows what the filters ask for; the current image stays the current one where it is still shown.
function update(wanted = currentIndex()) {
  const indices = shownImages(facts, decisions.letters, choice);
  const place = indices.indexOf(wanted);
  if (place >= 0) grid.current = place;
  grid.show(indices, thresholdLine(facts, indices, choice));
  at("empty").hidden = indices.length > 0;
  at("empty").textContent = choice.decision === "undecided" ? "Everything here is decided." : "No image is like that.";
  at("shown").textContent = `${indices.length} shown`;
  grid.element.setAttribute("aria-label", `Training images, ${ORDERS[choice.order].name}`);
  showProgress();
  showCurrent();
}

function showProgress() {
  const kept = decisions.count(KEEP), dropped = decisions.count(DROP), total = facts.path.length;
  const { sum, unknown } = expectedLeft(facts, decisions.letters);
  let left = sum === null ? "unknown" : sum.toFixed(sum < 100 ? 1 : 0);
  if (sum !== null && unknown.length) left += ` (unknown in ${unknown.map(visible).join(", ")})`;
  at("progress").replaceChildren(
    "reviewed ", make("b", "", String(kept + dropped)), ` of ${total} \u00b7 ${dropped} dropped, ${kept} kept \u00b7 expected defects left: `,
    make("b", "", left),
  );
  at("bar").max = total || 1;
  at("bar").value = kept + dropped;
  at("undo").disabled = at("large-undo").disabled = !decisions.past.length;
  at("download").disabled = kept + dropped === 0;
}

function showCurrent() {
  const index = currentIndex();
  at("current").replaceChildren();
  if (index < 0) return;
  const name = make("bdi", "", visible(facts.path[index]));
  at("current").append(name, ` \u00b7 rank ${index + 1} \u00b7 score ${figure(facts.score[index])}`);
  if (large.open) large.show(index, decisions.letters[index], grid.selects);
}

function say(text) {
  at("said").textContent = text;
}

function notice(text) {
  at("notice-text").textContent = text;
  at("notice").hidden = false;
}

function decide(letter, { place = grid.current, move = true } = {}) {
  const index = grid.indices[place];
  if (index === undefined) return;
  const unable = !decisions.kept;
  decisions.set([[index, letter]], index);
  if (unable !== !decisions.kept) warnUnkept();
  say(`${WORD[letter]}: ${visible(facts.path[index])}`);
  const next = grid.indices[Math.min(place + 1, grid.indices.length - 1)];
  if (choice.decision !== "all") {
    // The image may leave the view; the one after it takes its place.
    grid.current = place;
    const gone = WORD[letter] !== choice.decision;
    update(gone ? (next === index ? -1 : next) : move ? next : index);
    if (grid.indices.length) grid.go(grid.current);
    else if (large.open) large.dialog.close();
    return;
  }
  showProgress();
  grid.go(move ? place + 1 : place);
}

function undo() {
  const index = decisions.undo();
  if (index < 0) return say("nothing to undo");
  say(`undone: ${visible(facts.path[index])}`);
  update(index);
  grid.go(grid.current);
}

// Goes to the next image that is undecided, from the beginning again after the last.
function nextUndecided() {
  const count = grid.indices.length;
  for (let step = 1; step <= count; step += 1) {
    const place = (grid.current + step) % count;
    if (decisions.letters[grid.indices[place]] === UNDECIDED) return grid.go(place);
  }
  say("nothing is undecided here");
}

function toggleHeat() {
  const on = document.body.classList.toggle("heat");
  at("heat").setAttribute("aria-pressed", on);
  grid.heatAll(on);
}

function enlarge() {
  const index = currentIndex();
  if (index >= 0) large.show(index, decisions.letters[index], grid.selects);
}

function filterUndecided() {
  choice.decision = at("decision").value = choice.decision === "undecided" ? "all" : "undecided";
  update();
  grid.go(grid.current);
}

function download() {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([decisions.csv()], { type: "text/csv" }));
  link.download = "decisions.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  notice(`decisions.csv is downloaded. To leave the dropped images out, type where it lies:\n${facts.apply} decisions.csv`);
}

async function load(file) {
  try {
    const { changed, unknown } = decisions.load(await file.text(), currentIndex());
    const rest = unknown ? ` ${unknown} rows name images that are not in this run.` : "";
    notice(`${changed} decisions are taken over from ${visible(file.name)}.${rest}`);
    update();
  } catch (error) {
    notice(`${visible(file.name)} is not taken over: ${error.message}.`);
  }
}

function warnUnkept() {
  notice("This browser keeps no decisions of this page: download them before you close it.");
}

const KEYS = {
  k: () => decide(KEEP), d: () => decide(DROP), c: () => decide(UNDECIDED, { move: false }),
  n: nextUndecided, u: undo, h: toggleHeat, f: filterUndecided,
  ArrowRight: () => grid.go(grid.current + 1), ArrowLeft: () => grid.go(grid.current - 1),
  ArrowDown: () => grid.step(1), ArrowUp: () => grid.step(-1),
  PageDown: () => grid.step(Math.max(1, Math.floor(grid.scroll.clientHeight / grid.pitch))),
  PageUp: () => grid.step(-Math.max(1, Math.floor(grid.scroll.clientHeight / grid.pitch))),
  Home: () => grid.go(0), End: () => grid.go(grid.indices.length - 1),
};

document.addEventListener("keydown", (event) => {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.target.closest?.("select, input")) return;
  if ((event.ctrlKey || event.metaKey) && key === "z") {
    event.preventDefault();
    return undo();
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const onButton = event.target.closest?.("button");
  if (key === "Enter" && !onButton) {
    event.preventDefault();
    return large.open ? large.dialog.close() : enlarge();
  }
  if (!KEYS[key]) return;
  event.preventDefault();
  KEYS[key]();
});

grid.element.addEventListener("click", (event) => {
  const tile = event.target.closest(".tile");
  if (!tile) return;
  const place = +tile.dataset.place, letter = event.target.closest("button")?.dataset.letter;
  if (!letter) return grid.go(place);
  // Pressed again, a button takes its decision back.
  const same = decisions.letters[grid.indices[place]] === letter;
  grid.current = place;
  decide(same ? UNDECIDED : letter, { place, move: false });
});
grid.element.addEventListener("dblclick", (event) => {
  if (event.target.closest(".tile") && !event.target.closest("button")) enlarge();
});

for (const [id, act] of Object.entries({
  keep: KEYS.k, drop: KEYS.d, next: nextUndecided, undo, enlarge, heat: toggleHeat, download,
  "large-keep": KEYS.k, "large-drop": KEYS.d, "large-undo": undo,
  "large-back": KEYS.ArrowLeft, "large-on": KEYS.ArrowRight,
})) {
  at(id).addEventListener("click", act);
}
at("notice-close").addEventListener("click", () => { at("notice").hidden = true; });
for (const key of ["category", "decision", "order"]) {
  at(key).addEventListener("change", (event) => {
    choice[key] = key === "category" ? +event.target.value : event.target.value;
    grid.current = 0;
    grid.scroll.scrollTop = 0;
    update(-1);
  });
}
at("size").addEventListener("input", (event) => {
  grid.tile = +event.target.value;
  grid.measure();
  grid.go(grid.current, { focus: false });
});
at("import").addEventListener("change", (event) => {
  if (event.target.files.length) load(event.target.files[0]);
  event.target.value = "";
});
large.dialog.addEventListener("close", () => grid.go(grid.current));
window.addEventListener("storage", (event) => {
  if (event.key !== decisions.key) return;
  decisions.read(); // another window on the same run
  update();
});

function fillChoices() {
  const count = (category, test) => facts.category.reduce((sum, each, index) => sum + (each === category && test(index)), 0);
  if (facts.categories.length > 1) at("category").append(new Option(`all (${facts.path.length})`, "-1"));
  facts.categories.forEach((name, category) => {
    const out = count(category, (index) => !facts.selected[index]);
    const rest = grid.selects ? `, ${out} left out` : "";
    at("category").append(new Option(`${visible(name)} (${count(category, () => true)}${rest})`, category));
  });
  choice.category = +at("category").value;
  for (const [key, { name, there }] of Object.entries(ORDERS)) {
    if (!there || there(facts)) at("order").append(new Option(name, key));
  }
}

function describeRun() {
  const parts = [facts.name];
  const { categories: each = {}, all, mean } = facts.contamination;
  const { estimate, low, high } = all ?? mean ?? {};
  const percent = (value) => `${(100 * value).toFixed(0)} %`;
  if (typeof estimate === "number") {
    const span = typeof low === "number" && typeof high === "number" ? ` (${percent(low)} to ${percent(high)})` : "";
    parts.push(`estimated contamination ${percent(estimate)}${span}`);
  }
  const unknown = Object.keys(each).filter((name) => typeof each[name].estimate !== "number");
  if (unknown.length) {
    const names = unknown.slice(0, 3).join(", ") + (unknown.length > 3 ? ", ..." : "");
    parts.push(`contamination unknown for ${names}: ${each[unknown[0]].reason ?? "no reason given"}`);
  }
  if (!grid.selects) at("advice").textContent = "this method leaves no image out";
  else if (facts.categories.length > 1) at("advice").textContent = "pick a category to see its threshold";
  at("run").textContent = visible(parts.join(" \u00b7 "));
  if (!facts.maps) {
    at("heat").hidden = at("scale").hidden = true;
    return;
  }
  at("low").textContent = figure(facts.maps.low, 2);
  at("high").textContent = figure(facts.maps.high, 2);
  at("scale").setAttribute("aria-label", `heatmaps: one scale for the run, from ${figure(facts.maps.low)} to ${figure(facts.maps.high)}`);
  at("scale").title = at("scale").getAttribute("aria-label");
  const values = Uint8Array.from({ length: 96 }, (_, x) => Math.round((255 * x) / 95));
  paintHeat(at("ramp"), values, pictures.colours);
}

fillChoices();
describeRun();
update();
if (!decisions.kept) warnUnkept();
// Tiles that were drawn before their pictures had been read.
document.addEventListener("DOMContentLoaded", () => {
  if (grid.element.querySelector("[data-waits]")) grid.redraw();
});

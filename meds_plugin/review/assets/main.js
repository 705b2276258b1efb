// Connects the page's parts: filters, keys, buttons, files.

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const decisions = new Decisions(data);
const images = new ReviewImages(data, showLoaded, (file) => {
  showNotice(`${file} is missing or belongs to another run: keep the folder ${data.folder} next to this page, or rebuild the page.`);
});
const choice = { category: -1, decision: "all", issue: "all", order: data.suspicion ? "suspicion" : "descending" };
const grid = new Grid(data, images, decisions, showCurrent);
const large = new LargeView(data, images, decisions);
grid.selects = data.selected.includes(0) || data.thresholds.some((value) => value !== null);

function currentIndex() {
  return grid.indices.length ? grid.indices[grid.current] : -1;
}

// Applies the filters; the current image stays current if it is still shown.
function update(wanted = currentIndex()) {
  const indices = shownImages(data, decisions, choice);
  const place = indices.indexOf(wanted);
  if (place >= 0) grid.current = place;
  grid.show(indices, headings(data, indices, choice));
  byId("empty").hidden = indices.length > 0;
  byId("empty").textContent = choice.decision === "undecided" ? "Every image here has a decision." : "No images match the filters.";
  const advice = choice.category < 0 ? "choose a category to see its threshold" : "";
  byId("advice").textContent = grid.selects ? advice : "this method selects every image";
  byId("shown").textContent = `${indices.length} shown`;
  grid.element.setAttribute("aria-label", `Training images, ${ORDERS[choice.order].name}`);
  showProgress();
  showCurrent();
}

function showProgress() {
  const kept = decisions.count(KEEP), dropped = decisions.count(DROP), total = data.path.length;
  const conflicts = decisions.conflicts();
  const { sum, unknown } = expectedContaminated(data, decisions.letters);
  let expected = sum === null ? "unknown" : sum.toFixed(sum < 100 ? 1 : 0);
  if (sum !== null && unknown.length) expected += ` (unknown in ${unknown.map(visible).join(", ")})`;
  byId("progress").replaceChildren(
    "reviewed ", make("b", "", String(kept + dropped)), ` of ${total} \u00b7 ${dropped} dropped, ${kept} kept \u00b7 ${conflicts ? `${counted(conflicts, "conflict")} \u00b7 ` : ""}expected contaminated images left: `,
    make("b", "", expected),
  );
  byId("bar").max = total || 1;
  byId("bar").value = kept + dropped;
  byId("undo").disabled = byId("large-undo").disabled = !decisions.past.length;
  byId("download").disabled = kept + dropped === 0;
  byId("conflicts").disabled = !conflicts && choice.decision !== "conflict";
  byId("conflicts").textContent = `conflicts (${conflicts})`;
}

function showCurrent() {
  const index = currentIndex();
  byId("current").replaceChildren();
  for (const [id, letter] of [["keep", KEEP], ["drop", DROP]]) {
    byId(id).setAttribute("aria-pressed", index >= 0 && decisions.letters[index] === letter);
  }
  if (index < 0) return;
  const name = make("bdi", "", visible(data.path[index]));
  byId("current").append(name, ` \u00b7 rank ${index + 1} \u00b7 score ${formatNumber(data.score[index])}`);
  if (large.open) large.show(index, grid.selects);
}

// Shows images whose part of the folder has been loaded.
function showLoaded() {
  grid.fill();
  large.fillWaiting();
}

function announce(text) {
  // Behind an open dialog nothing is heard.
  byId(large.open ? "large-announcement" : "announcement").textContent = text;
}

function showNotice(text) {
  byId("notice-text").textContent = text;
  byId("notice").hidden = false;
}

function decide(letter, { place = grid.current, move = true } = {}) {
  const index = grid.indices[place];
  if (index === undefined) return;
  const stored = decisions.stored;
  decisions.set([[index, letter, UNDECIDED]], index);
  if (stored && !decisions.stored) warnUnstored();
  const done = data.path.length - decisions.count(UNDECIDED);
  announce(`${WORD[letter]}: ${visible(data.path[index])}, ${done} of ${data.path.length} reviewed`);
  const next = grid.indices[Math.min(place + 1, grid.indices.length - 1)];
  if (choice.decision !== "all") {
    // If the image leaves the view, the next one takes its place.
    grid.current = place;
    const gone = !matches(data, decisions, index, choice);
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
  if (index < 0) return announce("nothing to undo");
  announce(`undone: ${visible(data.path[index])}`);
  update(index);
  grid.go(grid.current);
}

// Goes to the next undecided image, wrapping around at the end.
function nextUndecided() {
  const count = grid.indices.length;
  for (let step = 1; step <= count; step += 1) {
    const place = (grid.current + step) % count;
    if (decisions.letters[grid.indices[place]] === UNDECIDED) return grid.go(place);
  }
  announce("no undecided image here");
}

function toggleHeat() {
  const on = document.body.classList.toggle("heat");
  byId("heat").setAttribute("aria-pressed", on);
  grid.heatAll(on);
}

function enlarge() {
  const index = currentIndex();
  if (index >= 0) large.show(index, grid.selects);
}

function compare() {
  if (!data.nearest) return;
  large.comparing = !large.open || !large.comparing;
  enlarge();
}

function filterUndecided() {
  choice.decision = byId("decision").value = choice.decision === "undecided" ? "all" : "undecided";
  update();
  grid.go(grid.current);
}

function download() {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([decisions.csv()], { type: "text/csv" }));
  link.download = "decisions.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  const conflicts = decisions.conflicts();
  const open = conflicts ? ` ${counted(conflicts, "conflict")} not settled: the file has your decisions.` : "";
  showNotice(`decisions.csv was downloaded.${open} To exclude the dropped images, run this in its folder:\n${data.apply} decisions.csv`);
}

async function load(file) {
  try {
    const { added, agreed, conflicts, unknown } = decisions.merge(await file.text(), currentIndex());
    const parts = [`Imported ${counted(added, "decision")} from ${visible(file.name)}`];
    if (agreed) parts.push(`${agreed} agree with yours`);
    if (conflicts) parts.push(`${conflicts} contradict yours, which are kept: choose Show: conflicts to settle them`);
    if (unknown) parts.push(`${counted(unknown, "row")} for images that are not in this run`);
    showNotice(parts.join("; ") + ".");
    update();
  } catch (error) {
    showNotice(`${visible(file.name)} was not imported: ${error.message}.`);
  }
}

function warnUnstored() {
  showNotice("This browser cannot store your decisions: download them before you close the page.");
}

const KEYS = {
  k: () => decide(KEEP), d: () => decide(DROP), c: () => decide(UNDECIDED, { move: false }),
  n: nextUndecided, u: undo, h: toggleHeat, f: filterUndecided, v: compare,
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
  // A second click takes the decision back.
  const index = grid.indices[place];
  const same = decisions.letters[index] === letter && decisions.others[index] === UNDECIDED;
  grid.current = place;
  decide(same ? UNDECIDED : letter, { place, move: false });
});
grid.element.addEventListener("dblclick", (event) => {
  if (event.target.closest(".tile") && !event.target.closest("button")) enlarge();
});

for (const [id, act] of Object.entries({
  keep: KEYS.k, drop: KEYS.d, next: nextUndecided, undo, enlarge, heat: toggleHeat, download,
  "large-keep": KEYS.k, "large-drop": KEYS.d, "large-undo": undo,
  "large-previous": KEYS.ArrowLeft, "large-next": KEYS.ArrowRight, "large-compare": compare,
})) {
  byId(id).addEventListener("click", act);
}
byId("notice-close").addEventListener("click", () => { byId("notice").hidden = true; });
for (const key of ["category", "decision", "issue", "order"]) {
  byId(key).addEventListener("change", (event) => {
    choice[key] = key === "category" ? +event.target.value : event.target.value;
    grid.current = 0;
    grid.scroll.scrollTop = 0;
    update(-1);
  });
}
byId("size").addEventListener("input", (event) => {
  grid.tile = +event.target.value;
  grid.measure();
  grid.go(grid.current, { focus: false });
});
byId("import").addEventListener("change", (event) => {
  if (event.target.files.length) load(event.target.files[0]);
  event.target.value = "";
});
large.dialog.addEventListener("close", () => grid.go(grid.current));
onSwipe(byId("large-images"), (step) => grid.go(grid.current + step));
window.addEventListener("storage", (event) => {
  if (event.key !== decisions.key) return;
  decisions.read(); // made in another window
  update();
});

function fillChoices() {
  const count = (category, test) => data.category.reduce((sum, each, index) => sum + (each === category && test(index)), 0);
  if (data.categories.length > 1) byId("category").append(new Option(`all categories (${data.path.length})`, "-1"));
  data.categories.forEach((name, category) => {
    const out = count(category, (index) => !data.selected[index]);
    const rest = grid.selects ? `, ${out} not selected` : "";
    byId("category").append(new Option(`${visible(name)} (${count(category, () => true)}${rest})`, category));
  });
  choice.category = +byId("category").value;
  for (const [label, orders] of [["Sort", SORTS], ["Group", GROUPS]]) {
    const group = make("optgroup");
    group.label = label;
    for (const [key, { name, available }] of Object.entries(orders)) {
      if (!available || available(data)) group.append(new Option(name, key));
    }
    if (group.childElementCount) byId("order").append(group);
  }
  byId("category-choice").hidden = data.categories.length < 2;
  byId("issue-choice").hidden = !data.issues;
  data.issueNames.forEach((name, bit) => {
    const number = data.issues.reduce((sum, each) => sum + ((each >> bit) & 1), 0);
    byId("issue").append(new Option(`${visible(name)} (${number})`, bit));
  });
}

function describeRun() {
  byId("compare-hint").hidden = !data.nearest;
  const parts = [data.name];
  const { categories = {}, all = {} } = data.contamination;
  const percent = (value) => `${(100 * value).toFixed(0)}%`;
  if (all.estimate != null) {
    parts.push(`estimated contamination ${percent(all.estimate)} (${percent(all.low)} to ${percent(all.high)})`);
  }
  const unknown = Object.keys(categories).filter((name) => categories[name].estimate === null);
  if (unknown.length) {
    const names = unknown.slice(0, 3).join(", ") + (unknown.length > 3 ? ", ..." : "");
    const reasons = new Set(unknown.map((name) => categories[name].reason));
    parts.push(`contamination unknown for ${names}: ${reasons.size > 1 ? "see contamination.json" : [...reasons][0]}`);
  }
  byId("run").textContent = visible(parts.join(" \u00b7 "));
  byId("headline").hidden = !data.headline;
  byId("headline").textContent = visible(data.headline ?? "");
  byId("cut-short").hidden = !data.cutShort;
  byId("cut-short").textContent = `Cut short: ${data.cutShort}. The order of the images is not final.`;
  if (!data.maps) {
    byId("heat").hidden = byId("scale").hidden = true;
    return;
  }
  byId("low").textContent = formatNumber(data.maps.low, 2);
  byId("high").textContent = formatNumber(data.maps.high, 2);
  byId("scale").setAttribute("aria-label", `Heatmaps: one colour scale for the run, from ${formatNumber(data.maps.low)} to ${formatNumber(data.maps.high)}`);
  byId("scale").title = byId("scale").getAttribute("aria-label");
  const values = Uint8Array.from({ length: 96 }, (_, x) => Math.round((255 * x) / 95));
  paintHeat(byId("ramp"), values, images.colours);
}

fillChoices();
describeRun();
update();
if (!decisions.stored) warnUnstored();
// Tiles drawn before their images were part of the document.
document.addEventListener("DOMContentLoaded", showLoaded);

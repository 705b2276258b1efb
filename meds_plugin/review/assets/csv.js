// CSV as in RFC 4180.

function csvField(text) {
  return /[",\r\n]|^\s|\s$/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}

function csvText(rows) {
  return rows.map((row) => row.map(csvField).join(",") + "\r\n").join("");
}

// Returns rows of fields; throws if a quote is not closed.
function csvRows(text) {
  const rows = [];
  let row = [];
  let at = text.charCodeAt(0) === 0xfeff ? 1 : 0;
  while (at < text.length) {
    let field = "";
    if (text[at] === '"') {
      for (;;) {
        const end = text.indexOf('"', at + 1);
        if (end < 0) throw new Error("a quote is not closed");
        field += text.slice(at + 1, end);
        at = end + 1;
        if (text[at] !== '"') break;
        field += '"';
      }
    }
    // A lone carriage return may be part of a name; with a line feed it ends the row.
    const rest = /,|\r?\n|$/g;
    rest.lastIndex = at;
    const found = rest.exec(text);
    row.push(field + text.slice(at, found.index));
    at = found.index + found[0].length;
    if (found[0] !== ",") {
      rows.push(row);
      row = [];
    } else if (at === text.length) {
      row.push("");
    }
  }
  if (row.length) rows.push(row);
  return rows.filter((each) => each.some((field) => field !== ""));
}

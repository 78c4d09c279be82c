// Draws each figure's chart from its table. Without this script the tables are there.
const few = 5; // as FEW in the schema of measures
const rowsOf = (table) => {
  const headings = [...table.tHead.rows[0].cells];
  const drawn = headings.map((cell, place) => ("series" in cell.dataset ? place : 0)).filter(Boolean);
  return [...table.tBodies[0].rows].reverse().flatMap((row) => {
    const over = "n" in row.dataset ? Number(row.dataset.n) : null;
    const isFew = over !== null && over < few;
    const isUnderWay = "now" in row.dataset;
    const counted = over === null ? "all" : isFew ? `few (n=${over})` : `n=${over}`;
    const note = isUnderWay ? `${counted}, so far` : counted;
    return drawn.map((place) => {
      const cell = row.cells[place];
      const value = Number(cell.dataset.v ?? cell.textContent);
      return { week: row.cells[0].firstChild.data.trim(), series: headings[place].textContent, place, note, few: isFew || isUnderWay,
        value: Number.isFinite(value) ? value : null };
    });
  });
};
// A report's table says which columns its chart reads. The chart has the largest series, which colours tell apart.
const most = 8; // as MOST_SERIES of tiles
const rowsOfReport = (table, chart) => {
  const headings = [...table.tHead.rows[0].cells];
  const placesOf = (role) => headings.flatMap((cell, place) => (role in cell.dataset ? [place] : []));
  const [x] = placesOf("x"), [group] = placesOf("group"), ys = placesOf("y");
  const exact = (cell) => cell.dataset.v ?? cell.textContent;
  const number = (cell) => (Number.isFinite(Number(exact(cell))) ? Number(exact(cell)) : null);
  const time = (cell) => Date.parse(exact(cell).slice(0, 19).replace(" ", "T") + (exact(cell).length > 10 ? "Z" : ""));
  const kind = chart.dataset.drawing.split("-").at(-1);
  const places = new Map();
  const rows = [...table.tBodies[0].rows].flatMap((row) => {
    const cell = row.cells[x];
    const at = kind === "time" ? time(cell) : kind === "number" ? number(cell) : cell.textContent;
    if (at === null || Number.isNaN(at)) return [];
    return ys.map((y) => {
      const names = [group === undefined ? "" : row.cells[group].textContent, ys.length > 1 || group === undefined ? headings[y].textContent : ""];
      const series = kind === "pie" ? cell.textContent : names.filter(Boolean).join(" · ");
      if (!places.has(series)) places.set(series, places.size);
      return { x: at, series, place: places.get(series), value: number(row.cells[y]) };
    });
  });
  if (places.size <= most) return rows;
  const totals = new Map();
  for (const row of rows) totals.set(row.series, (totals.get(row.series) ?? 0) + Math.abs(row.value ?? 0));
  const largest = new Set([...totals].sort((a, b) => b[1] - a[1]).slice(0, kind === "pie" ? most - 1 : most).map(([series]) => series));
  if (kind !== "pie") return rows.filter((row) => largest.has(row.series));
  const others = rows.filter((row) => !largest.has(row.series)).reduce((sum, row) => sum + (row.value ?? 0), 0);
  return [...rows.filter((row) => largest.has(row.series)), { x: "others", series: "others", place: places.size, value: others }];
};
const options = { ast: true, actions: false, defaultStyle: false, renderer: "svg", tooltip: { disableDefaultStyle: true } };
const darkness = matchMedia("(prefers-color-scheme: dark)");
const specifications = new Map();
const specification = (drawing) => {
  const address = `/insights/charts/${drawing}.json?dark=${darkness.matches}`;
  if (!specifications.has(address)) specifications.set(address, fetch(address, { redirect: "error" }).then((answer) => answer.json()));
  return specifications.get(address);
};
let turns = 0;
const draw = async () => {
  const turn = ++turns; // a second change of colours overtakes the first one
  for (const chart of document.querySelectorAll("[data-drawing]")) {
    const titles = { $x: chart.dataset.x || null, $y: chart.dataset.y || null };
    const kind = await specification(chart.dataset.drawing);
    if (turn !== turns) return;
    const made = JSON.parse(JSON.stringify(kind), (_, value) => (Object.hasOwn(titles, value) ? titles[value] : value));
    const table = chart.closest(".figure").querySelector("table");
    made.datasets = { rows: chart.dataset.drawing.startsWith("report-") ? rowsOfReport(table, chart) : rowsOf(table) };
    chart.classList.add("drawn");
    await vegaEmbed(chart, made, options);
    chart.querySelector("svg").setAttribute("aria-hidden", "true"); // the label of the chart tells what it shows
  }
  document.documentElement.dataset.charts = "drawn";
};
darkness.addEventListener("change", draw);
draw();

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
const options = { ast: true, actions: false, defaultStyle: false, renderer: "svg", tooltip: { disableDefaultStyle: true } };
const darkness = matchMedia("(prefers-color-scheme: dark)");
const specifications = new Map();
const specification = (drawing) => {
  const address = `/insights/charts/${drawing}.json?dark=${darkness.matches}`;
  if (!specifications.has(address)) specifications.set(address, fetch(address, { redirect: "error" }).then((answer) => answer.json()));
  return specifications.get(address);
};
const draw = async () => {
  for (const chart of document.querySelectorAll("[data-drawing]")) {
    const made = structuredClone(await specification(chart.dataset.drawing));
    made.datasets = { rows: rowsOf(chart.closest(".figure").querySelector("table")) };
    chart.classList.add("drawn");
    await vegaEmbed(chart, made, options);
    chart.querySelector("svg").setAttribute("aria-hidden", "true"); // the label of the chart tells what it shows
  }
  document.documentElement.dataset.charts = "drawn";
};
darkness.addEventListener("change", draw);
draw();

// Comfort only: the page works without it.
for (const button of document.querySelectorAll("[data-copy]")) {
  const from = document.getElementById(button.dataset.copy);
  if (!navigator.clipboard || !from) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText("value" in from ? from.value : from.textContent);
    const label = button.ariaLabel;
    button.textContent = button.ariaLabel = "Copied";
    setTimeout(() => { button.textContent = "Copy"; button.ariaLabel = label; }, 2000);
  });
}
document.getElementById("failure")?.focus();

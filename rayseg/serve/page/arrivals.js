// Where images come from: a file that is chosen, pasted, or dropped anywhere on the page.

const get = (id) => document.getElementById(id);

/** `came` hears of an image and of how many further files came with it; `refused` of a file that is no image. */
export function listenForImages(came, refused) {
  const take = (files) => {
    if (!files.length) return;
    if (get("image").hidden) location.hash = "#image";
    const file = [...files].find((one) => one.type === "" || one.type.startsWith("image/"));
    if (file) came(file, files.length - 1);
    else refused(files[0]);
  };
  const stage = get("stage");
  for (const id of ["choose", "another"]) get(id).addEventListener("click", () => get("file").click());
  get("file").addEventListener("change", () => {
    take([...get("file").files]);
    get("file").value = "";
  });
  addEventListener("paste", (event) => take(event.clipboardData?.files ?? []));
  addEventListener("dragover", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    stage.classList.add("over");
  });
  addEventListener("dragleave", (event) => event.relatedTarget || stage.classList.remove("over"));
  addEventListener("drop", (event) => {
    stage.classList.remove("over");
    if (!event.dataTransfer?.files.length) return;
    event.preventDefault();
    take(event.dataTransfer.files);
  });
}

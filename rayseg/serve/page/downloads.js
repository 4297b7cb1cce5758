// What is shown, as files: COCO results, a COCO data set, a PNG.

const IMAGE_ID = 1;

/** A list of COCO results of one image, its id 1. */
export function cocoResults(instances) {
  return instances.map((one) => ({
    image_id: IMAGE_ID,
    category_id: one.category_id,
    category: one.category,
    bbox: one.bbox,
    score: one.score,
    area: one.area,
    segmentation: one.segmentation,
  }));
}

/** A COCO file of one image: `categories` are all that the model knows. */
export function cocoDataset(instances, answer, fileName, classes) {
  const known = classes.length ? classes.map((name, id) => ({ id, name })) : namesOf(instances);
  return {
    info: { description: `${answer.model}, ${answer.fingerprint}` },
    images: [{ id: IMAGE_ID, file_name: fileName, width: answer.width, height: answer.height }],
    categories: known,
    annotations: cocoResults(instances).map((one, i) => ({ id: i + 1, iscrowd: 0, ...one })),
  };
}

/** Hand a file to the user. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export const jsonBlob = (value) => new Blob([JSON.stringify(value)], { type: "application/json" });

const namesOf = (instances) =>
  [...new Map(instances.map((one) => [one.category_id, { id: one.category_id, name: one.category }])).values()];

"""The works that the methods and the definitions of columns cite, by the name under which they are cited there."""

from collections.abc import Iterable, Mapping

REFERENCES: Mapping[str, str] = {
    "Alaa 2022": "A. Alaa, B. van Breugel, E. Saveliev, M. van der Schaar. How faithful is your synthetic data? "
    "Sample-level metrics for evaluating and auditing generative models. ICML 2022.",
    "Altman and Bland 1994": "D. G. Altman, J. M. Bland. Diagnostic tests 1: sensitivity and specificity. BMJ 308 "
    "(1994) 1552.",
    "Arjovsky 2017": "M. Arjovsky, S. Chintala, L. Bottou. Wasserstein generative adversarial networks. ICML 2017.",
    "Bińkowski 2018": "M. Bińkowski, D. J. Sutherland, M. Arbel, A. Gretton. Demystifying MMD GANs. ICLR 2018.",
    "Brodersen 2010": "K. H. Brodersen, C. S. Ong, K. E. Stephan, J. M. Buhmann. The balanced accuracy and its "
    "posterior distribution. ICPR 2010.",
    "Chong and Forsyth 2020": "M. J. Chong, D. Forsyth. Effectively unbiased FID and Inception Score and where to "
    "find them. CVPR 2020.",
    "Çiçek 2016": "Ö. Çiçek, A. Abdulkadir, S. S. Lienkamp, T. Brox, O. Ronneberger. 3D U-Net: learning dense "
    "volumetric segmentation from sparse annotation. MICCAI 2016.",
    "Cohen 2018": "J. P. Cohen, M. Luck, S. Honari. Distribution matching losses can hallucinate features in medical "
    "image translation. MICCAI 2018.",
    "Dice 1945": "L. R. Dice. Measures of the amount of ecologic association between species. Ecology 26 (1945) "
    "297–302.",
    "Efron 1979": "B. Efron. Bootstrap methods: another look at the jackknife. Annals of Statistics 7 (1979) 1–26.",
    "Goodfellow 2014": "I. Goodfellow et al. Generative adversarial nets. NeurIPS 2014.",
    "Gulrajani 2017": "I. Gulrajani, F. Ahmed, M. Arjovsky, V. Dumoulin, A. Courville. Improved training of "
    "Wasserstein GANs. NeurIPS 2017.",
    "Guo 2017": "C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger. On calibration of modern neural networks. ICML 2017.",
    "Hanley and McNeil 1982": "J. A. Hanley, B. J. McNeil. The meaning and use of the area under a receiver operating "
    "characteristic (ROC) curve. Radiology 143 (1982) 29–36.",
    "Heusel 2017": "M. Heusel, H. Ramsauer, T. Unterthiner, B. Nessler, S. Hochreiter. GANs trained by a two "
    "time-scale update rule converge to a local Nash equilibrium. NeurIPS 2017.",
    "Holm 1979": "S. Holm. A simple sequentially rejective multiple test procedure. Scandinavian Journal of "
    "Statistics 6 (1979) 65–70.",
    "Huang 2024": "Y. Huang, A. Gokaslan, V. Kuleshov, J. Tompkin. The GAN is dead; long live the GAN! A modern GAN "
    "baseline. NeurIPS 2024.",
    "Huijben 2024": "E. M. C. Huijben et al. Generating synthetic computed tomography for radiotherapy: SynthRAD2023 "
    "challenge report. Medical Image Analysis 97 (2024) 103276.",
    "Huttenlocher 1993": "D. P. Huttenlocher, G. A. Klanderman, W. J. Rucklidge. Comparing images using the Hausdorff "
    "distance. IEEE Trans. Pattern Analysis and Machine Intelligence 15 (1993) 850–863.",
    "ICRU 44": "International Commission on Radiation Units and Measurements. Tissue substitutes in radiation "
    "dosimetry and measurement. ICRU Report 44, 1989.",
    "Jolicoeur-Martineau 2018": "A. Jolicoeur-Martineau. The relativistic discriminator: a key element missing from "
    "standard GAN. ICLR 2019 (arXiv 2018).",
    "Kynkäänniemi 2019": "T. Kynkäänniemi, T. Karras, S. Laine, J. Lehtinen, T. Aila. Improved precision and recall "
    "metric for assessing generative models. NeurIPS 2019.",
    "Lim and Ye 2017": "J. H. Lim, J. C. Ye. Geometric GAN. arXiv:1705.02894, 2017.",
    "Mao 2017": "X. Mao, Q. Li, H. Xie, R. Y. K. Lau, Z. Wang, S. P. Smolley. Least squares generative adversarial "
    "networks. ICCV 2017.",
    "Mescheder 2018": "L. Mescheder, A. Geiger, S. Nowozin. Which training methods for GANs do actually converge? "
    "ICML 2018.",
    "Mirza and Osindero 2014": "M. Mirza, S. Osindero. Conditional generative adversarial nets. arXiv:1411.1784, 2014.",
    "Miyato 2018": "T. Miyato, T. Kataoka, M. Koyama, Y. Yoshida. Spectral normalization for generative adversarial "
    "networks. ICLR 2018.",
    "Miyato and Koyama 2018": "T. Miyato, M. Koyama. cGANs with projection discriminator. ICLR 2018.",
    "Naeem 2020": "M. F. Naeem, S. J. Oh, Y. Uh, Y. Choi, J. Yoo. Reliable fidelity and diversity metrics for "
    "generative models. ICML 2020.",
    "Radford 2016": "A. Radford, L. Metz, S. Chintala. Unsupervised representation learning with deep convolutional "
    "generative adversarial networks. ICLR 2016.",
    "Salimans 2016": "T. Salimans et al. Improved techniques for training GANs. NeurIPS 2016.",
    "Shokri 2017": "R. Shokri, M. Stronati, C. Song, V. Shmatikov. Membership inference attacks against machine "
    "learning models. IEEE Symposium on Security and Privacy 2017.",
    "Sønderby 2017": "C. K. Sønderby, J. Caballero, L. Theis, W. Shi, F. Huszár. Amortised MAP inference for image "
    "super-resolution. ICLR 2017.",
    "Tustison 2010": "N. J. Tustison et al. N4ITK: improved N3 bias correction. IEEE Trans. Medical Imaging 29 (2010) "
    "1310–1320.",
    "Wang 2003": "Z. Wang, E. P. Simoncelli, A. C. Bovik. Multiscale structural similarity for image quality "
    "assessment. Asilomar Conference on Signals, Systems and Computers 2003.",
    "Wang 2004": "Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli. Image quality assessment: from error "
    "visibility to structural similarity. IEEE Trans. Image Processing 13 (2004) 600–612.",
    "Zhao 2020": "S. Zhao, Z. Liu, J. Lin, J.-Y. Zhu, S. Han. Differentiable augmentation for data-efficient GAN "
    "training. NeurIPS 2020.",
    "Zhu 2017": "J.-Y. Zhu, T. Park, P. Isola, A. A. Efros. Unpaired image-to-image translation using cycle-consistent "
    "adversarial networks. ICCV 2017.",
}


def cited(texts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """(name, full reference) of every work named in the texts, by name."""
    whole = "\n".join(texts)
    return tuple((name, full) for name, full in REFERENCES.items() if name in whole)
